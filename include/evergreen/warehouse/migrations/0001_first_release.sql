-- Evergreen's own tables. Those of a release before there were numbered migrations have any part of this already, so every
-- statement can run again; the migrations after this one run once, and need not.
CREATE SCHEMA IF NOT EXISTS evergreen;   -- decisions, predictions, judgements
CREATE SCHEMA IF NOT EXISTS data;        -- published datasets: data.NAME and data.NAME__history
CREATE SCHEMA IF NOT EXISTS staging;     -- batches on their way in, one table each, dropped when decided
CREATE SCHEMA IF NOT EXISTS quarantine;  -- rows that were held back: quarantine.NAME

-- The migrations that these tables have had: none is applied twice, and an older release does not work on tables that it does not know.
CREATE TABLE IF NOT EXISTS evergreen.schema_version (
    version     integer PRIMARY KEY,
    migrated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- The file, and what it was. NULL: of a release before there were files.
ALTER TABLE evergreen.schema_version ADD COLUMN IF NOT EXISTS name text;
ALTER TABLE evergreen.schema_version ADD COLUMN IF NOT EXISTS sha256 text;

-- The ledger: every decision, append-only. `answers` names the decisions that this one settles.
CREATE TABLE IF NOT EXISTS evergreen.decision (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    decided_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    as_of       timestamptz NOT NULL,
    subject     text NOT NULL CHECK (subject ~ '^(dataset|model|fleet)/[a-z][a-z0-9_]*$'),
    kind        text NOT NULL,
    reason      text NOT NULL,
    version     text,
    evidence    jsonb NOT NULL DEFAULT '{}',
    answers     bigint[] NOT NULL DEFAULT '{}',
    run_id      text NOT NULL,
    dedupe_key  text NOT NULL UNIQUE
);
-- What concerns all models and datasets (fleet/...) was no subject in earlier releases.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = 'evergreen.decision'::regclass
                   AND conname = 'decision_subject_check' AND pg_get_constraintdef(oid) LIKE '%|fleet)/%') THEN
        ALTER TABLE evergreen.decision DROP CONSTRAINT IF EXISTS decision_subject_check, ADD CONSTRAINT decision_subject_check
            CHECK (subject ~ '^(dataset|model|fleet)/[a-z][a-z0-9_]*$');
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS decision_subject ON evergreen.decision (subject, kind, id);

CREATE OR REPLACE FUNCTION evergreen.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'evergreen.decision is append-only: % refused; write a new decision instead', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE OR REPLACE TRIGGER decision_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON evergreen.decision
    FOR EACH STATEMENT EXECUTE FUNCTION evergreen.refuse_change();

-- Asset events that Airflow has not been told yet: owed in the transaction of what they tell, deleted when it has them.
CREATE TABLE IF NOT EXISTS evergreen.owed_event (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset       text NOT NULL,             -- dataset/NAME, model/NAME or predictions/NAME
    as_of       timestamptz NOT NULL,
    run_id      text NOT NULL,
    owed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS owed_event_asset ON evergreen.owed_event (asset, id);

-- Tasks that have begun and not told how they ended. What a killed process leaves here is looked after by the DAG `mail`.
CREATE TABLE IF NOT EXISTS evergreen.begun (
    run_id      text NOT NULL,             -- dag_id/run_id
    task_id     text NOT NULL,
    try_number  int NOT NULL,
    log_url     text NOT NULL,
    as_of       timestamptz NOT NULL,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    failed_at   timestamptz,               -- when it was first seen to have failed, untold
    PRIMARY KEY (run_id, task_id)
);

-- Files seen by ingest; a checksum is decided once per dataset.
CREATE TABLE IF NOT EXISTS evergreen.batch (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset     text NOT NULL,
    checksum    text NOT NULL,
    file        text NOT NULL,
    as_of       timestamptz NOT NULL,
    decided_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    state       text NOT NULL,
    rows_read   bigint NOT NULL,
    rows_new    bigint NOT NULL,
    rows_changed bigint NOT NULL,
    rows_held   bigint NOT NULL,
    failures    jsonb NOT NULL DEFAULT '[]'
);
-- The file as it was when it was last hashed: one that is still so is not hashed again.
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS file_size bigint;
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS file_mtime_ns bigint;
-- The system's own time of the last change, which nobody can set back; NULL: it is hashed again.
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS file_ctime_ns bigint;
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS file_inode numeric(20);

-- Rows that are as they were before, and rows of the file that are equal to an earlier one of it and were dropped. Read are
-- new + changed + unchanged + duplicate + held of a published batch. NULL: an earlier release decided it.
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS rows_unchanged bigint;
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS rows_duplicate bigint;

-- withdrawn: its rows were taken back; by hand, or for `replaced_by`, the same file judged again. dismissed: held back, and a
-- person says that it stays so. keys_deleted: a file of keys, which are gone.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = 'evergreen.batch'::regclass
                   AND conname = 'batch_state_check' AND pg_get_constraintdef(oid) LIKE '%keys_deleted%') THEN
        ALTER TABLE evergreen.batch DROP CONSTRAINT IF EXISTS batch_state_check, ADD CONSTRAINT batch_state_check
            CHECK (state IN ('published', 'quarantined', 'withdrawn', 'dismissed', 'keys_deleted'));
    END IF;
END $$;
-- The order in which batches were published; one that is judged again keeps its place. NULL: an earlier release's, or held back.
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS place bigint;
ALTER TABLE evergreen.batch ADD COLUMN IF NOT EXISTS replaced_by bigint REFERENCES evergreen.batch (id);
ALTER TABLE evergreen.batch DROP CONSTRAINT IF EXISTS batch_dataset_checksum_key;
CREATE UNIQUE INDEX IF NOT EXISTS batch_file ON evergreen.batch (dataset, checksum) WHERE replaced_by IS NULL;

-- The keys of rows that were held back, at most 10,000 a batch: what is not published since is still missing.
-- NULL: the key could not be read.
CREATE TABLE IF NOT EXISTS evergreen.held_key (
    batch       bigint NOT NULL REFERENCES evergreen.batch (id) ON DELETE CASCADE,
    row_number  bigint NOT NULL,
    key         jsonb,
    PRIMARY KEY (batch, row_number)
);

-- Batch predictions. The row with the smallest scored_at of a key is the one that was served.
CREATE TABLE IF NOT EXISTS evergreen.prediction (
    model       text NOT NULL,
    version     text NOT NULL,
    key         text NOT NULL,             -- json_build_array of the model's key columns, as text
    event_time  timestamptz NOT NULL,
    prediction  double precision NOT NULL,
    as_of       timestamptz NOT NULL,
    scored_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_id      text NOT NULL,
    PRIMARY KEY (model, key, version)
);
CREATE INDEX IF NOT EXISTS prediction_time ON evergreen.prediction (model, event_time);
-- The watch's sample of a large window: the keys with the smallest hashes, a sixteenth of all, in 64 buckets.
CREATE INDEX IF NOT EXISTS prediction_sample ON evergreen.prediction
    (model, (hashtextextended(key, 0) >> 54), event_time) WHERE (hashtextextended(key, 0) >> 54) < -448;

-- What the previous champion predicts of the rows that a new champion scores while it is watched. Served was none of it.
-- `version` is the previous champion's.
CREATE TABLE IF NOT EXISTS evergreen.shadow_prediction (
    LIKE evergreen.prediction INCLUDING DEFAULTS,
    PRIMARY KEY (model, key, version)
);
CREATE INDEX IF NOT EXISTS shadow_prediction_time ON evergreen.shadow_prediction (model, event_time);

-- One row per judged window; judged again (revision + 1) when more labels, rows or predictions are in.
CREATE TABLE IF NOT EXISTS evergreen.window_judgement (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model        text NOT NULL,
    version      text NOT NULL,
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    revision     int NOT NULL,
    as_of        timestamptz NOT NULL,
    judged_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    row_count    bigint NOT NULL,
    sampled_rows bigint NOT NULL,
    labelled     bigint NOT NULL,
    status       text NOT NULL CHECK (status IN ('ok', 'violation', 'insufficient', 'stale')),
    violations   jsonb NOT NULL DEFAULT '[]',  -- [{kind, column, statistic, value, limit}]
    metrics      jsonb NOT NULL DEFAULT '{}',  -- served error: {rmse: {value, limit, reference}, ...}
    report       text,                         -- MLflow artifact path of the HTML report
    mlflow_run   text,
    UNIQUE (model, version, window_start, revision)
);
ALTER TABLE evergreen.window_judgement ADD COLUMN IF NOT EXISTS scored bigint;  -- NULL: an earlier release judged

CREATE TABLE IF NOT EXISTS evergreen.window_column (
    judgement_id bigint NOT NULL REFERENCES evergreen.window_judgement (id) ON DELETE CASCADE,
    column_name  text NOT NULL,
    kind         text NOT NULL,     -- data_drift, prediction_drift, missing, new_category, unreadable
    statistic    text NOT NULL,
    value        double precision,  -- NULL: could not be computed, which counts as a violation
    threshold    double precision NOT NULL,
    violated     boolean NOT NULL,
    detail       text NOT NULL DEFAULT '',
    PRIMARY KEY (judgement_id, column_name, kind)
);

-- E-mails. One row per incident and class; a row stays until it went out, so a loss is visible.
CREATE TABLE IF NOT EXISTS evergreen.mail (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident    text NOT NULL UNIQUE,
    subject     text NOT NULL,             -- dataset/NAME, model/NAME or fleet/specs
    kind        text NOT NULL,
    decision_id bigint REFERENCES evergreen.decision (id),
    context     jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts    int NOT NULL DEFAULT 0,
    last_error  text,
    sent_at     timestamptz
);
-- The incident whose first mail this one answers (itself, or NULL: it is the first), and as of when it was owed.
ALTER TABLE evergreen.mail ADD COLUMN IF NOT EXISTS thread text;
ALTER TABLE evergreen.mail ADD COLUMN IF NOT EXISTS as_of timestamptz;
ALTER TABLE evergreen.mail ADD COLUMN IF NOT EXISTS message_id text;  -- of the letter in which it went out
-- The addresses that have a mail of which the server refused others (NULL: nobody has it, or sent_at is set): the rest is owed it.
ALTER TABLE evergreen.mail ADD COLUMN IF NOT EXISTS taken_by text[];
-- The silence that has kept it back.
ALTER TABLE evergreen.mail ADD COLUMN IF NOT EXISTS held_by bigint REFERENCES evergreen.decision (id);
CREATE INDEX IF NOT EXISTS mail_subject ON evergreen.mail (subject, kind, id);
CREATE INDEX IF NOT EXISTS mail_unsent ON evergreen.mail (subject, id) WHERE sent_at IS NULL;

-- The newest silence of each subject; in force until then. One that was ended by hand has an end that has come.
CREATE OR REPLACE VIEW evergreen.silence AS
    SELECT DISTINCT ON (subject) id, subject, (evidence->>'until')::timestamptz AS until
    FROM evergreen.decision WHERE kind = 'silenced' ORDER BY subject, id DESC;
