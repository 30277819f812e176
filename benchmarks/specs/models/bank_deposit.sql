SELECT
    id,
    ts,
    age,
    balance,
    campaign,
    pdays,
    previous,
    job,
    marital,
    education,
    in_default,
    housing,
    loan,
    contact,
    poutcome,
    deposit
FROM bank
