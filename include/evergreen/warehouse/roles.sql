-- The roles as which the steps log in, each with what it needs and nothing else. Run by an administrator in the warehouse's database
-- once `migrate` has made its tables, and again after each upgrade: it takes away what is no longer granted, and grants the rest anew.
--
-- evergreen_ingest    owns the datasets' tables, which it makes from their specs; decides on batches
-- evergreen_model     trains, scores, monitors, sends what is due: reads datasets, writes predictions and judgements
-- evergreen_serving   answers requests: reads the ledger, datasets by key and its clients; writes what it answered
-- evergreen_exporter  reads what is counted: the ledger, judgements, mails and tasks, no row of a dataset and no prediction
-- The first two append to the ledger. The database's owner has every right; nothing but migrations needs it.
DO $$
DECLARE
    role name;
    owner name := (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database());
    found record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('evergreen.migrate'));
    FOREACH role IN ARRAY ARRAY['evergreen_features', 'evergreen_ingest', 'evergreen_model', 'evergreen_serving', 'evergreen_exporter'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- roles are the server's: another database was faster
        END;
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA evergreen FROM %I', role);
        EXECUTE format('REVOKE ALL ON SCHEMA evergreen, data, staging, quarantine FROM %I', role);
    END LOOP;

    EXECUTE format('GRANT CONNECT ON DATABASE %I TO evergreen_ingest, evergreen_model, evergreen_serving, evergreen_exporter', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO evergreen_ingest, evergreen_model, evergreen_serving, evergreen_features', current_database());
    GRANT evergreen_features TO evergreen_model, evergreen_serving;
    -- One login for everything works on beside the others.
    EXECUTE format('GRANT evergreen_features, evergreen_ingest TO %I', owner);

    -- Columns and indexes of a table are added by its owner alone. Tables of the time before the roles belong to another one.
    GRANT USAGE, CREATE ON SCHEMA data, staging, quarantine TO evergreen_ingest;
    FOR found IN
        SELECT c.oid::regclass AS tab FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('data', 'staging', 'quarantine') AND c.relkind IN ('r', 'p')
        AND pg_get_userbyid(c.relowner) <> 'evergreen_ingest'
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO evergreen_ingest', found.tab);
    END LOOP;
    REVOKE ALL ON ALL TABLES IN SCHEMA data, staging, quarantine FROM evergreen_model, evergreen_serving, evergreen_exporter;
    GRANT USAGE ON SCHEMA data TO evergreen_model, evergreen_serving;
    GRANT SELECT ON ALL TABLES IN SCHEMA data TO evergreen_model, evergreen_serving;
    FOREACH role IN ARRAY ARRAY['evergreen_ingest', owner] LOOP
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA data GRANT SELECT ON TABLES TO evergreen_model, evergreen_serving',
            role);
    END LOOP;

    GRANT USAGE ON SCHEMA evergreen TO evergreen_ingest, evergreen_model, evergreen_serving, evergreen_exporter;
    GRANT SELECT, INSERT ON evergreen.decision TO evergreen_ingest, evergreen_model;
    GRANT SELECT, INSERT, DELETE ON evergreen.owed_event TO evergreen_ingest, evergreen_model;
    GRANT SELECT, INSERT, UPDATE, DELETE ON evergreen.begun TO evergreen_ingest, evergreen_model;
    GRANT SELECT, INSERT, UPDATE ON evergreen.mail TO evergreen_ingest, evergreen_model;
    GRANT SELECT, INSERT, UPDATE ON evergreen.delivery TO evergreen_ingest, evergreen_model;
    GRANT SELECT ON evergreen.silence TO evergreen_ingest, evergreen_model;

    GRANT SELECT, INSERT, UPDATE ON evergreen.batch TO evergreen_ingest;
    GRANT SELECT, INSERT, DELETE ON evergreen.held_key TO evergreen_ingest;

    GRANT SELECT, INSERT ON evergreen.prediction, evergreen.shadow_prediction TO evergreen_model;
    GRANT SELECT, INSERT ON evergreen.window_judgement, evergreen.window_column TO evergreen_model;
    GRANT SELECT, INSERT, UPDATE, DELETE ON evergreen.latest_features, evergreen.latest_filled TO evergreen_model;
    GRANT SELECT ON evergreen.request, evergreen.traffic, evergreen.serving_process TO evergreen_model;  -- what was asked, for the checks and the pages
    GRANT SELECT ON evergreen.batch, evergreen.held_key TO evergreen_model;  -- e-mails and the digest tell of batches, too
    IF current_setting('server_version_num')::int >= 170000 THEN
        -- Scoring brings the planner up to date after a large write (ANALYZE). Before 17 only an owner can; autovacuum does it then.
        GRANT MAINTAIN ON evergreen.prediction, evergreen.shadow_prediction, evergreen.latest_features TO evergreen_model;
    END IF;

    -- It writes by a temporary table of the same columns, which asks for the right to read them. Who may ask is the owner's to say.
    GRANT SELECT ON evergreen.decision, evergreen.window_judgement, evergreen.client, evergreen.latest_features,
        evergreen.latest_filled TO evergreen_serving;
    GRANT SELECT, INSERT ON evergreen.prediction, evergreen.shadow_prediction TO evergreen_serving;
    GRANT SELECT, INSERT, DELETE ON evergreen.request, evergreen.traffic TO evergreen_serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON evergreen.serving_process TO evergreen_serving;

    GRANT SELECT ON evergreen.decision, evergreen.window_judgement, evergreen.window_column, evergreen.mail, evergreen.silence,
        evergreen.begun, evergreen.delivery, evergreen.traffic TO evergreen_exporter;
END $$;
