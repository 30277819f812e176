-- 200 models: a ledger of 60,000 decisions, and of each model 28 judged windows of 10 columns and six hours online, with a canary.
INSERT INTO evergreen.decision (decided_at, as_of, subject, kind, reason, version, evidence, run_id, dedupe_key)
    SELECT now() - interval '3 years' + n * interval '10 minutes', now(), 'model/m' || n % 200,
        (ARRAY['retrain_suppressed', 'retrain_suppressed', 'rejected', 'retrain_requested', 'promoted'])[1 + n / 200 % 5], 'x',
        '1', jsonb_build_object('why', repeat('evidence ', 50)), 'r', n::text FROM generate_series(1, 60000) AS n;
INSERT INTO evergreen.window_judgement (model, version, window_start, window_end, revision, as_of, row_count, sampled_rows, labelled,
        status, metrics)
    SELECT 'm' || m, '1', now() - w * interval '7 days', now() - (w - 1) * interval '7 days', r, now(), 1, 1, 1, 'ok',
        jsonb_build_object('rmse', jsonb_build_object('value', 1.5, 'limit', 2, 'reference', 1, 'violated', false,
            'state', CASE WHEN w < 8 THEN 'not_yet' ELSE 'judged' END))
    FROM generate_series(0, 199) AS m, generate_series(1, 14) AS w, generate_series(1, 2) AS r;
INSERT INTO evergreen.window_column SELECT j.id, 'column_' || c, 'data_drift', 'wasserstein', 0.01 * c, 0.2, false
    FROM evergreen.window_judgement AS j, generate_series(1, 10) AS c;
INSERT INTO evergreen.traffic SELECT 'm' || m, v, date_trunc('minute', now()) - n * interval '1 minute', 'a', 60, 60, 0, 0, 0,
        2 ^ ((floor(8 * random() / 4) + 0.5) / 8), 2 ^ (2 + (floor(8 * random() / 2) + 0.5) / 8)  -- as the service tells them: in steps of an eighth of a doubling
    FROM generate_series(0, 199) AS m, generate_series(1, 360) AS n, (VALUES ('1'), ('2')) AS t (v);
ANALYZE;
