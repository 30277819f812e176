SELECT
    ts,
    extract(hour FROM ts)::float + extract(minute FROM ts)::float / 60 AS hour,
    extract(isodow FROM ts)::int AS weekday,
    temperature,
    humidity,
    windspeed,
    zone_3::float AS zone_3
FROM tetouan
