"""What the gate says, and what is decided on a challenger beside it: the reason codes, the checks and the verdict, as the
ledger, the mails and the policy read them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from evergreen.ledger.reasons import GateReason


@dataclass(frozen=True)
class Check:
    """One rule: what was found, what the limit is, the reason code if it fails, and the same as a sentence."""

    check: str
    value: float | str | None
    limit: float | str | None
    passed: bool
    code: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class GateVerdict:
    """The gate's answer, with every check."""

    passed: bool
    reason: GateReason
    checks: tuple[Check, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "passed": self.passed,
            "reason": self.reason.value,
            "checks": [asdict(c) for c in self.checks],
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> GateVerdict:
        """What `to_dict` gave."""
        return GateVerdict(
            content["passed"], GateReason(content["reason"]), tuple(Check(**c) for c in content["checks"])
        )
