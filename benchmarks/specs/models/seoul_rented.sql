SELECT
    ts,
    extract(hour FROM ts)::float + extract(minute FROM ts)::float / 60 AS hour,
    extract(isodow FROM ts)::int AS weekday,
    temperature,
    humidity,
    windspeed,
    visibility,
    dew_point,
    solar,
    rainfall,
    snowfall,
    season,
    holiday,
    functioning,
    rented::float AS rented
FROM seoul
