"""The specs that belong to a DAG file, whatever commit of them its DAG bundle has checked out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from airflow.sdk import get_parsing_context
from airflow.sdk.exceptions import AirflowFailException

from evergreen import settings
from evergreen.spec import DatasetSpec, ModelSpec, Specs, load_specs, load_subject
from evergreen.spec.environment import environment_problems


@dataclass(frozen=True)
class Project:
    """What a DAG file is built of: see `evergreen.settings.specs_beside`. Nothing is kept; each call reads the files as they are.

    Args:
        dag_file: the path of the file in the DAG folder.
    """

    dag_file: str

    @property
    def folder(self) -> Path:
        """The folder with datasets/ and models/."""
        return settings.specs_beside(self.dag_file)

    def specs(self) -> Specs:
        """All specs: for the DAG processor. A task reads only its own."""
        return load_specs(self.folder)

    def specs_and_environment(self) -> Specs:
        """All specs, with what is wrong with the environment variables among the problems: for those who tell of them."""
        found = self.specs()
        return replace(found, problems=(*environment_problems(found), *found.problems))

    def subject(self, subject: str) -> Specs:
        """What is known of `model/NAME` or `dataset/NAME`; empty specs where the file is gone."""
        return load_subject(self.folder, subject)

    def wanted(self, kind: str) -> Iterator[tuple[str, ModelSpec]]:
        """The models whose `kind` DAG is to be built, by DAG id: all, or the only one that a starting task needs."""
        for spec in self._wanted(kind, "model").models.values():
            yield f"{kind}__{spec.name}", spec

    def wanted_datasets(self, kind: str) -> Iterator[tuple[str, DatasetSpec]]:
        """The datasets whose `kind` DAG is to be built, by DAG id."""
        for spec in self._wanted(kind, "dataset").datasets.values():
            yield f"{kind}__{spec.name}", spec

    def _wanted(self, kind: str, of: str) -> Specs:
        current = get_parsing_context().dag_id
        if current is None:
            return self.specs()
        this, _, name = current.partition("__")
        return self.subject(f"{of}/{name}") if this == kind else Specs()

    def model(self, name: str) -> tuple[Specs, ModelSpec]:
        """A model and the datasets that it reads.

        Raises:
            AirflowFailException: the model's spec has become unusable since the DAG was built.
        """
        found = self.subject(f"model/{name}")
        if name not in found.models:
            raise AirflowFailException(
                "\n".join(str(p) for p in found.problems) or f"models/{name}.yaml is gone"
            )
        return found, found.models[name]

    def dataset(self, name: str) -> DatasetSpec:
        """The spec of a dataset; see `model`."""
        found = self.subject(f"dataset/{name}")
        if name not in found.datasets:
            raise AirflowFailException(
                "\n".join(str(p) for p in found.problems) or f"datasets/{name}.yaml is gone"
            )
        return found.datasets[name]


def doc(module_doc: str | None, spec: DatasetSpec | ModelSpec) -> str:
    """The DAG's page in the UI: the file's docstring, headed by what the spec says."""
    return f"**{spec.name}**: {spec.description}\n\n{module_doc or ''}"
