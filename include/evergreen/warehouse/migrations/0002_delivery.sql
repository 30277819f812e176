-- The ways on which a mail is owed: a row for each channel, so that one that is down holds no other up. A mail that waits and has none
-- here, of a release before this one, gets its rows when it is next tried. `mail.sent_at` says when the last of them went out.
CREATE TABLE evergreen.delivery (
    mail       bigint NOT NULL REFERENCES evergreen.mail (id),
    channel    text NOT NULL,           -- email, or channel:NAME
    attempts   int NOT NULL DEFAULT 0,  -- that failed
    last_error text,
    sent_at    timestamptz,
    message_id text,                    -- of the e-mail in which it went out
    -- The addresses that have a mail of which the server refused others (NULL: nobody has it, or sent_at is set): the rest is owed it.
    taken_by   text[],
    PRIMARY KEY (mail, channel)
);
INSERT INTO evergreen.delivery (mail, channel, attempts, last_error, sent_at, message_id, taken_by)
    SELECT id, 'email', attempts, last_error, sent_at, message_id, taken_by FROM evergreen.mail
    WHERE sent_at IS NOT NULL OR attempts > 0 OR taken_by IS NOT NULL;
ALTER TABLE evergreen.mail DROP COLUMN attempts, DROP COLUMN last_error, DROP COLUMN message_id, DROP COLUMN taken_by;
