SELECT
    ts,
    2 * extract(hour FROM ts)::int + (extract(minute FROM ts)::int / 30) AS period,
    extract(isodow FROM ts)::int                                         AS weekday,
    nswprice,
    nswdemand,
    vicprice,
    vicdemand,
    transfer,
    up
FROM electricity
