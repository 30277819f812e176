-- One row per hour; rush compares the hour with the 80th percentile of the 28 days before its day.
SELECT
    h.ts,
    extract(hour FROM h.ts)::int      AS hour,
    extract(isodow FROM h.ts)::int    AS weekday,
    CASE WHEN h.holiday THEN 'holiday' WHEN h.workingday THEN 'working' ELSE 'weekend' END AS day_kind,
    h.weather,
    h.temperature,
    h.humidity,
    h.windspeed,
    h.price,
    (h.demand > usual.p80)::int       AS rush
FROM bike_hourly AS h
JOIN (
    SELECT d.day, percentile_cont(0.8) WITHIN GROUP (ORDER BY past.demand) AS p80
    FROM (SELECT DISTINCT date_trunc('day', ts) AS day FROM bike_hourly) AS d
    JOIN bike_hourly AS past ON past.ts >= d.day - interval '28 days' AND past.ts < d.day
    GROUP BY d.day
) AS usual ON usual.day = date_trunc('day', h.ts)
