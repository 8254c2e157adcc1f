-- The events of the webhook email-marketing-click in PostgreSQL: each once, by its primary key. Kafka Connect fills
-- the tables (`hookbridge schema --format connect`).
CREATE TABLE email_marketing_click (
  ce_id text PRIMARY KEY,            -- the same for every record of one event
  "campid" text NOT NULL,            -- the record's key
  event_time timestamptz NOT NULL,
  body text NOT NULL                 -- as the sender wrote it
);
CREATE INDEX ON email_marketing_click (event_time);

-- What came for it and is no such event.
CREATE TABLE email_marketing_click_dead_letter (
  ce_id text PRIMARY KEY,
  received timestamptz NOT NULL,
  reason text NOT NULL,              -- as in the header hookbridge-reason
  detail text NOT NULL,              -- what is wrong with it
  webhook text NOT NULL,             -- its webhook
  sender text NOT NULL,              -- the name of the key that brought it
  body bytea NOT NULL                -- as it came
);

CREATE OR REPLACE FUNCTION event_json(body text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN ltrim(body, E'\uFEFF')::jsonb;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL; -- jsonb has no \u0000
END $$;

CREATE OR REPLACE FUNCTION event_number(field text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN field::double precision;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;

-- The fields. One that is missing or not of its type is NULL.
CREATE VIEW email_marketing_click_fields AS SELECT
  ce_id,
  "campid",
  event_time,
  json->>'browser' AS "browser",     -- the browser
  json->>'campaignName' AS "campaignName", -- the campaign's name
  json->>'cityName' AS "cityName",   -- the city of the click, which may be imprecise
  json->>'contactId' AS "contactId", -- the contact
  json->>'countryName' AS "countryName", -- its country
  json->>'destination' AS "destination", -- the address that was clicked
  json->>'device_type' AS "device_type", -- the kind of device
  json->>'email' AS "email",         -- the recipient's address
  json->>'event' AS "event",         -- where it is there, always this, in any case
  event_number(json->>'latitude') AS "latitude", -- its latitude
  event_number(json->>'longitude') AS "longitude", -- its longitude
  json->>'regionName' AS "regionName", -- its region, state or department
  json->>'relid' AS "relid",         -- the customer's account
  json->>'subject' AS "subject",     -- the subject line
  json->>'timestamp' AS "timestamp", -- the event's time, as the sender writes it
  json->>'type' AS "type"            -- where it is there, always this, in any case
FROM (SELECT *, event_json(body) AS json FROM email_marketing_click OFFSET 0) AS events;

-- The events of the webhook email-marketing-sent in PostgreSQL: each once, by its primary key. Kafka Connect fills
-- the tables (`hookbridge schema --format connect`).
CREATE TABLE email_marketing_sent (
  ce_id text PRIMARY KEY,            -- the same for every record of one event
  "campid" text NOT NULL,            -- the record's key
  event_time timestamptz NOT NULL,
  body text NOT NULL                 -- as the sender wrote it
);
CREATE INDEX ON email_marketing_sent (event_time);

-- What came for it and is no such event.
CREATE TABLE email_marketing_sent_dead_letter (
  ce_id text PRIMARY KEY,
  received timestamptz NOT NULL,
  reason text NOT NULL,              -- as in the header hookbridge-reason
  detail text NOT NULL,              -- what is wrong with it
  webhook text NOT NULL,             -- its webhook
  sender text NOT NULL,              -- the name of the key that brought it
  body bytea NOT NULL                -- as it came
);

CREATE OR REPLACE FUNCTION event_json(body text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN ltrim(body, E'\uFEFF')::jsonb;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL; -- jsonb has no \u0000
END $$;

CREATE OR REPLACE FUNCTION event_number(field text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN field::double precision;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;

-- The fields. One that is missing or not of its type is NULL.
CREATE VIEW email_marketing_sent_fields AS SELECT
  ce_id,
  "campid",
  event_time,
  json->>'contactid' AS "contactid", -- the contact
  json->>'event' AS "event",         -- where it is there, always this, in any case
  json->>'origin' AS "origin",       -- always Web
  json->>'relid' AS "relid",         -- the customer's account
  json->>'response' AS "response",   -- the provider's own answer
  json->>'status' AS "status",       -- the result, in Spanish prose
  json->>'timestamp' AS "timestamp", -- the event's time, as the sender writes it
  json->>'to' AS "to",               -- the recipient's address
  json->>'type' AS "type"            -- where it is there, always this, in any case
FROM (SELECT *, event_json(body) AS json FROM email_marketing_sent OFFSET 0) AS events;

-- The events of the webhook email-marketing-bounce in PostgreSQL: each once, by its primary key. Kafka Connect fills
-- the tables (`hookbridge schema --format connect`).
CREATE TABLE email_marketing_bounce (
  ce_id text PRIMARY KEY,            -- the same for every record of one event
  "campid" text NOT NULL,            -- the record's key
  event_time timestamptz NOT NULL,
  body text NOT NULL                 -- as the sender wrote it
);
CREATE INDEX ON email_marketing_bounce (event_time);

-- What came for it and is no such event.
CREATE TABLE email_marketing_bounce_dead_letter (
  ce_id text PRIMARY KEY,
  received timestamptz NOT NULL,
  reason text NOT NULL,              -- as in the header hookbridge-reason
  detail text NOT NULL,              -- what is wrong with it
  webhook text NOT NULL,             -- its webhook
  sender text NOT NULL,              -- the name of the key that brought it
  body bytea NOT NULL                -- as it came
);

CREATE OR REPLACE FUNCTION event_json(body text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN ltrim(body, E'\uFEFF')::jsonb;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL; -- jsonb has no \u0000
END $$;

CREATE OR REPLACE FUNCTION event_number(field text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN field::double precision;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;

-- The fields. One that is missing or not of its type is NULL.
CREATE VIEW email_marketing_bounce_fields AS SELECT
  ce_id,
  "campid",
  event_time,
  json->>'contactid' AS "contactid", -- the contact
  json->>'event' AS "event",         -- where it is there, always this, in any case
  json->>'origin' AS "origin",       -- always Web
  json->>'relid' AS "relid",         -- the customer's account
  json->>'response' AS "response",   -- the provider's own answer
  json->>'status' AS "status",       -- the result, in Spanish prose
  json->>'timestamp' AS "timestamp", -- the event's time, as the sender writes it
  json->>'to' AS "to",               -- the recipient's address
  json->>'type' AS "type"            -- where it is there, always this, in any case
FROM (SELECT *, event_json(body) AS json FROM email_marketing_bounce OFFSET 0) AS events;

-- The events of the webhook smtp-bounce in PostgreSQL: each once, by its primary key. Kafka Connect fills
-- the tables (`hookbridge schema --format connect`).
CREATE TABLE smtp_bounce (
  ce_id text PRIMARY KEY,            -- the same for every record of one event
  "msgid" text NOT NULL,             -- the record's key
  event_time timestamptz NOT NULL,
  body text NOT NULL                 -- as the sender wrote it
);
CREATE INDEX ON smtp_bounce (event_time);

-- What came for it and is no such event.
CREATE TABLE smtp_bounce_dead_letter (
  ce_id text PRIMARY KEY,
  received timestamptz NOT NULL,
  reason text NOT NULL,              -- as in the header hookbridge-reason
  detail text NOT NULL,              -- what is wrong with it
  webhook text NOT NULL,             -- its webhook
  sender text NOT NULL,              -- the name of the key that brought it
  body bytea NOT NULL                -- as it came
);

CREATE OR REPLACE FUNCTION event_json(body text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN ltrim(body, E'\uFEFF')::jsonb;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL; -- jsonb has no \u0000
END $$;

CREATE OR REPLACE FUNCTION event_number(field text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN field::double precision;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;

-- The fields. One that is missing or not of its type is NULL.
CREATE VIEW smtp_bounce_fields AS SELECT
  ce_id,
  "msgid",
  event_time,
  lower(json->>'certifiedEmail') = 'true' AS "certifiedEmail", -- true for certified mail, else absent
  json->>'custom_headers' AS "custom_headers", -- the sender's own headers
  json->>'event' AS "event",         -- where it is there, always this, in any case
  json->>'ip' AS "ip",               -- whence it was submitted; not for certified mail
  json->>'origin' AS "origin",       -- SMTP or API; not for certified mail
  json->>'relid' AS "relid",         -- the customer's account
  json->>'response' AS "response",   -- the provider's own answer
  json->>'sender' AS "sender",       -- the sender's address; not for certified mail
  json->>'status' AS "status",       -- the result, in Spanish prose
  json->>'subject' AS "subject",     -- the subject line
  json->>'timestamp' AS "timestamp", -- the event's time, as the sender writes it
  json->>'to' AS "to",               -- the recipient's address
  json->>'type' AS "type"            -- where it is there, always this, in any case
FROM (SELECT *, event_json(body) AS json FROM smtp_bounce OFFSET 0) AS events;

-- The events of the webhook smtp-delivered in PostgreSQL: each once, by its primary key. Kafka Connect fills
-- the tables (`hookbridge schema --format connect`).
CREATE TABLE smtp_delivered (
  ce_id text PRIMARY KEY,            -- the same for every record of one event
  "msgid" text NOT NULL,             -- the record's key
  event_time timestamptz NOT NULL,
  body text NOT NULL                 -- as the sender wrote it
);
CREATE INDEX ON smtp_delivered (event_time);

-- What came for it and is no such event.
CREATE TABLE smtp_delivered_dead_letter (
  ce_id text PRIMARY KEY,
  received timestamptz NOT NULL,
  reason text NOT NULL,              -- as in the header hookbridge-reason
  detail text NOT NULL,              -- what is wrong with it
  webhook text NOT NULL,             -- its webhook
  sender text NOT NULL,              -- the name of the key that brought it
  body bytea NOT NULL                -- as it came
);

CREATE OR REPLACE FUNCTION event_json(body text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN ltrim(body, E'\uFEFF')::jsonb;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL; -- jsonb has no \u0000
END $$;

CREATE OR REPLACE FUNCTION event_number(field text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN field::double precision;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$;

-- The fields. One that is missing or not of its type is NULL.
CREATE VIEW smtp_delivered_fields AS SELECT
  ce_id,
  "msgid",
  event_time,
  lower(json->>'certifiedEmail') = 'true' AS "certifiedEmail", -- true for certified mail, else absent
  json->>'event' AS "event",         -- where it is there, always this, in any case
  json->>'ip' AS "ip",               -- whence it was submitted
  json->>'origin' AS "origin",       -- SMTP or API; not for certified mail
  json->>'relid' AS "relid",         -- the customer's account
  json->>'response' AS "response",   -- the provider's own answer; for certified mail the steps
  json->>'status' AS "status",       -- the result, in Spanish prose
  json->>'subject' AS "subject",     -- the subject line
  json->>'timestamp' AS "timestamp", -- the event's time, as the sender writes it
  json->>'to' AS "to",               -- the recipient's address
  json->>'type' AS "type"            -- where it is there, always this, in any case
FROM (SELECT *, event_json(body) AS json FROM smtp_delivered OFFSET 0) AS events;
