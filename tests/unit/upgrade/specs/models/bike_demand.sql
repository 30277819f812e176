-- One row per hour. Tables carry the datasets' names; each is seen as it was known at the run's as-of time.
SELECT
    ts,
    extract(hour FROM ts)::int      AS hour,
    extract(isodow FROM ts)::int    AS weekday,
    extract(doy FROM ts)::int       AS day_of_year,
    CASE WHEN holiday THEN 'holiday' WHEN workingday THEN 'working' ELSE 'weekend' END AS day_kind,
    weather,
    temperature,
    humidity,
    windspeed,
    price,
    demand::float                   AS demand
FROM bike_hourly
