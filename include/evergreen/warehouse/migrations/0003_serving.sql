-- What the prediction service has answered: a row for each record. Predictions with a key are in evergreen.prediction, too.
CREATE TABLE evergreen.request (
    id         text NOT NULL,             -- of the request, as it was answered
    position   int NOT NULL,              -- of the record in it, from 0
    model      text NOT NULL,
    version    text NOT NULL,             -- whose prediction was answered
    client     text NOT NULL,
    asked_at   timestamptz NOT NULL,
    source     text NOT NULL,             -- where the features came from: record (the request itself), query or latest
    key        text,                      -- as in evergreen.prediction; NULL: the request named none
    event_time timestamptz,
    prediction double precision NOT NULL,
    features   jsonb,                     -- by name; NULL: not sampled
    PRIMARY KEY (id, position)
);
CREATE INDEX request_time ON evergreen.request (model, asked_at);

-- Whether a window has any predictions of the service, whose keys the clients name.
CREATE INDEX prediction_online ON evergreen.prediction (model, event_time) WHERE run_id LIKE 'online/%';

-- A minute of the service for each model and version, added up over its processes: what the pages and mails tell of the traffic.
CREATE TABLE evergreen.traffic (
    model      text NOT NULL,
    version    text NOT NULL,             -- empty: no version answered
    minute     timestamptz NOT NULL,
    instance   text NOT NULL,             -- the process
    requests   bigint NOT NULL,
    records    bigint NOT NULL,
    errors     bigint NOT NULL,           -- that are the service's own (5xx)
    refused    bigint NOT NULL,           -- that are the client's (4xx)
    lost       bigint NOT NULL,           -- records whose row of the log was lost
    p50_ms     double precision NOT NULL,
    p99_ms     double precision NOT NULL,
    PRIMARY KEY (model, minute, version, instance)
);
CREATE INDEX traffic_lost ON evergreen.traffic (model, minute) WHERE lost > 0;

-- The processes of the service, each with its newest sign of life: one that nobody asks is told from one that is away.
CREATE TABLE evergreen.serving_process (
    instance text PRIMARY KEY,
    alive_at timestamptz NOT NULL         -- by its own clock; brought up to date about once a minute
);

-- Who may ask the service. Of a key only its SHA-256 is kept: it is 32 random bytes, which nobody guesses.
CREATE TABLE evergreen.client (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,47}$'),
    key_sha256 text NOT NULL UNIQUE,
    models     text[] NOT NULL,           -- {*}: all
    rate       double precision NOT NULL CHECK (rate > 0),  -- requests a second, of each process of the service
    made_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);

-- The newest features of each entity of a model with serving.features: latest, as the scoring read them.
CREATE TABLE evergreen.latest_features (
    model      text NOT NULL,
    entity     text NOT NULL,             -- json_build_array of the key's columns but the event time, as text
    key        text NOT NULL,             -- as in evergreen.prediction
    event_time timestamptz NOT NULL,
    features   jsonb NOT NULL,            -- by name: numbers and texts; "NaN", "Infinity", "-Infinity" and "-0" are numbers that JSON has not
    as_of      timestamptz NOT NULL,      -- of the scoring that read these values first
    PRIMARY KEY (model, entity)
);

-- As of when they are all of them: a model without a row here has none yet, and a scoring as of an earlier time leaves them alone.
CREATE TABLE evergreen.latest_filled (
    model text PRIMARY KEY,
    as_of timestamptz NOT NULL
);

-- The service follows the ledger: it is told in the moment of the commit.
CREATE FUNCTION evergreen.tell_serving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('evergreen_serving', NEW.subject);
    RETURN NULL;
END $$;
CREATE TRIGGER decision_served AFTER INSERT ON evergreen.decision FOR EACH ROW
    WHEN (NEW.kind IN ('promoted', 'rolled_back', 'canary')) EXECUTE FUNCTION evergreen.tell_serving();
