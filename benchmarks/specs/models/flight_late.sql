SELECT
    id,
    ts,
    extract(hour FROM ts)::float + extract(minute FROM ts)::float / 60 AS hour,
    extract(isodow FROM ts)::int AS weekday,
    distance,
    temp,
    dewp,
    humid,
    wind_speed,
    precip,
    pressure,
    visib,
    carrier,
    origin,
    dest,
    late
FROM flights
