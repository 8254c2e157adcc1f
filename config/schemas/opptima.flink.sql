-- The events of the webhook email-marketing-click in Flink SQL. A field that is missing or not of its type is NULL.
CREATE TABLE `email_marketing_click` (
  `campid` STRING,                   -- the record's key
  `browser` STRING,                  -- the browser
  `campaignName` STRING,             -- the campaign's name
  `cityName` STRING,                 -- the city of the click, which may be imprecise
  `contactId` STRING,                -- the contact
  `countryName` STRING,              -- its country
  `destination` STRING,              -- the address that was clicked
  `device_type` STRING,              -- the kind of device
  `email` STRING,                    -- the recipient's address
  `event` STRING,                    -- where it is there, always this, in any case
  `latitude` DOUBLE,                 -- its latitude
  `longitude` DOUBLE,                -- its longitude
  `regionName` STRING,               -- its region, state or department
  `relid` STRING,                    -- the customer's account
  `subject` STRING,                  -- the subject line
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `type` STRING,                     -- where it is there, always this, in any case
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `ce_id` AS CAST(`headers`['ce_id'] AS STRING), -- the same for every record of one event
  `event_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `read_at` AS PROCTIME(),
  WATERMARK FOR `event_time` AS `event_time` - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.email-marketing.click',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-email-marketing-click',
  'scan.startup.mode' = 'earliest-offset',
  'key.format' = 'raw',
  'key.fields' = 'campid',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true',
  'value.fields-include' = 'EXCEPT_KEY'
);

-- Each event once: the first record with its ce_id. Ids are remembered for 'table.exec.state.ttl'.
CREATE VIEW `email_marketing_click_once` AS
SELECT `campid`, `browser`, `campaignName`, `cityName`, `contactId`, `countryName`, `destination`, `device_type`, `email`, `event`, `latitude`, `longitude`, `regionName`, `relid`, `subject`, `timestamp`, `type`, `ce_id`, `event_time`
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY `ce_id` ORDER BY `read_at`) AS `nth` FROM `email_marketing_click`
)
WHERE `nth` = 1;

-- What came for it and is no such event.
CREATE TABLE `email_marketing_click_dead_letter` (
  `body` BYTES,                      -- as it came
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `received` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `reason` AS CAST(`headers`['hookbridge-reason'] AS STRING),
  `detail` AS CAST(`headers`['hookbridge-detail'] AS STRING),
  `webhook` AS CAST(`headers`['hookbridge-webhook'] AS STRING),
  `sender` AS CAST(`headers`['hookbridge-caller'] AS STRING)
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.email-marketing.click.dead-letter',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-email-marketing-click',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'raw'
);

-- The events of the webhook email-marketing-sent in Flink SQL. A field that is missing or not of its type is NULL.
CREATE TABLE `email_marketing_sent` (
  `campid` STRING,                   -- the record's key
  `contactid` STRING,                -- the contact
  `event` STRING,                    -- where it is there, always this, in any case
  `origin` STRING,                   -- always Web
  `relid` STRING,                    -- the customer's account
  `response` STRING,                 -- the provider's own answer
  `status` STRING,                   -- the result, in Spanish prose
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `to` STRING,                       -- the recipient's address
  `type` STRING,                     -- where it is there, always this, in any case
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `ce_id` AS CAST(`headers`['ce_id'] AS STRING), -- the same for every record of one event
  `event_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `read_at` AS PROCTIME(),
  WATERMARK FOR `event_time` AS `event_time` - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.email-marketing.sent',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-email-marketing-sent',
  'scan.startup.mode' = 'earliest-offset',
  'key.format' = 'raw',
  'key.fields' = 'campid',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true',
  'value.fields-include' = 'EXCEPT_KEY'
);

-- Each event once: the first record with its ce_id. Ids are remembered for 'table.exec.state.ttl'.
CREATE VIEW `email_marketing_sent_once` AS
SELECT `campid`, `contactid`, `event`, `origin`, `relid`, `response`, `status`, `timestamp`, `to`, `type`, `ce_id`, `event_time`
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY `ce_id` ORDER BY `read_at`) AS `nth` FROM `email_marketing_sent`
)
WHERE `nth` = 1;

-- What came for it and is no such event.
CREATE TABLE `email_marketing_sent_dead_letter` (
  `body` BYTES,                      -- as it came
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `received` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `reason` AS CAST(`headers`['hookbridge-reason'] AS STRING),
  `detail` AS CAST(`headers`['hookbridge-detail'] AS STRING),
  `webhook` AS CAST(`headers`['hookbridge-webhook'] AS STRING),
  `sender` AS CAST(`headers`['hookbridge-caller'] AS STRING)
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.email-marketing.sent.dead-letter',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-email-marketing-sent',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'raw'
);

-- The events of the webhook email-marketing-bounce in Flink SQL. A field that is missing or not of its type is NULL.
CREATE TABLE `email_marketing_bounce` (
  `campid` STRING,                   -- the record's key
  `contactid` STRING,                -- the contact
  `event` STRING,                    -- where it is there, always this, in any case
  `origin` STRING,                   -- always Web
  `relid` STRING,                    -- the customer's account
  `response` STRING,                 -- the provider's own answer
  `status` STRING,                   -- the result, in Spanish prose
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `to` STRING,                       -- the recipient's address
  `type` STRING,                     -- where it is there, always this, in any case
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `ce_id` AS CAST(`headers`['ce_id'] AS STRING), -- the same for every record of one event
  `event_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `read_at` AS PROCTIME(),
  WATERMARK FOR `event_time` AS `event_time` - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.email-marketing.bounce',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-email-marketing-bounce',
  'scan.startup.mode' = 'earliest-offset',
  'key.format' = 'raw',
  'key.fields' = 'campid',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true',
  'value.fields-include' = 'EXCEPT_KEY'
);

-- Each event once: the first record with its ce_id. Ids are remembered for 'table.exec.state.ttl'.
CREATE VIEW `email_marketing_bounce_once` AS
SELECT `campid`, `contactid`, `event`, `origin`, `relid`, `response`, `status`, `timestamp`, `to`, `type`, `ce_id`, `event_time`
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY `ce_id` ORDER BY `read_at`) AS `nth` FROM `email_marketing_bounce`
)
WHERE `nth` = 1;

-- What came for it and is no such event.
CREATE TABLE `email_marketing_bounce_dead_letter` (
  `body` BYTES,                      -- as it came
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `received` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `reason` AS CAST(`headers`['hookbridge-reason'] AS STRING),
  `detail` AS CAST(`headers`['hookbridge-detail'] AS STRING),
  `webhook` AS CAST(`headers`['hookbridge-webhook'] AS STRING),
  `sender` AS CAST(`headers`['hookbridge-caller'] AS STRING)
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.email-marketing.bounce.dead-letter',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-email-marketing-bounce',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'raw'
);

-- The events of the webhook smtp-bounce in Flink SQL. A field that is missing or not of its type is NULL.
CREATE TABLE `smtp_bounce` (
  `msgid` STRING,                    -- the record's key
  `certifiedEmail` BOOLEAN,          -- true for certified mail, else absent
  `custom_headers` STRING,           -- the sender's own headers
  `event` STRING,                    -- where it is there, always this, in any case
  `ip` STRING,                       -- whence it was submitted; not for certified mail
  `origin` STRING,                   -- SMTP or API; not for certified mail
  `relid` STRING,                    -- the customer's account
  `response` STRING,                 -- the provider's own answer
  `sender` STRING,                   -- the sender's address; not for certified mail
  `status` STRING,                   -- the result, in Spanish prose
  `subject` STRING,                  -- the subject line
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `to` STRING,                       -- the recipient's address
  `type` STRING,                     -- where it is there, always this, in any case
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `ce_id` AS CAST(`headers`['ce_id'] AS STRING), -- the same for every record of one event
  `event_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `read_at` AS PROCTIME(),
  WATERMARK FOR `event_time` AS `event_time` - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.smtp.bounce',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-smtp-bounce',
  'scan.startup.mode' = 'earliest-offset',
  'key.format' = 'raw',
  'key.fields' = 'msgid',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true',
  'value.fields-include' = 'EXCEPT_KEY'
);

-- Each event once: the first record with its ce_id. Ids are remembered for 'table.exec.state.ttl'.
CREATE VIEW `smtp_bounce_once` AS
SELECT `msgid`, `certifiedEmail`, `custom_headers`, `event`, `ip`, `origin`, `relid`, `response`, `sender`, `status`, `subject`, `timestamp`, `to`, `type`, `ce_id`, `event_time`
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY `ce_id` ORDER BY `read_at`) AS `nth` FROM `smtp_bounce`
)
WHERE `nth` = 1;

-- What came for it and is no such event.
CREATE TABLE `smtp_bounce_dead_letter` (
  `body` BYTES,                      -- as it came
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `received` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `reason` AS CAST(`headers`['hookbridge-reason'] AS STRING),
  `detail` AS CAST(`headers`['hookbridge-detail'] AS STRING),
  `webhook` AS CAST(`headers`['hookbridge-webhook'] AS STRING),
  `sender` AS CAST(`headers`['hookbridge-caller'] AS STRING)
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.smtp.bounce.dead-letter',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-smtp-bounce',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'raw'
);

-- The events of the webhook smtp-delivered in Flink SQL. A field that is missing or not of its type is NULL.
CREATE TABLE `smtp_delivered` (
  `msgid` STRING,                    -- the record's key
  `certifiedEmail` BOOLEAN,          -- true for certified mail, else absent
  `event` STRING,                    -- where it is there, always this, in any case
  `ip` STRING,                       -- whence it was submitted
  `origin` STRING,                   -- SMTP or API; not for certified mail
  `relid` STRING,                    -- the customer's account
  `response` STRING,                 -- the provider's own answer; for certified mail the steps
  `status` STRING,                   -- the result, in Spanish prose
  `subject` STRING,                  -- the subject line
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `to` STRING,                       -- the recipient's address
  `type` STRING,                     -- where it is there, always this, in any case
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `ce_id` AS CAST(`headers`['ce_id'] AS STRING), -- the same for every record of one event
  `event_time` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `read_at` AS PROCTIME(),
  WATERMARK FOR `event_time` AS `event_time` - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.smtp.delivered',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-smtp-delivered',
  'scan.startup.mode' = 'earliest-offset',
  'key.format' = 'raw',
  'key.fields' = 'msgid',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true',
  'value.fields-include' = 'EXCEPT_KEY'
);

-- Each event once: the first record with its ce_id. Ids are remembered for 'table.exec.state.ttl'.
CREATE VIEW `smtp_delivered_once` AS
SELECT `msgid`, `certifiedEmail`, `event`, `ip`, `origin`, `relid`, `response`, `status`, `subject`, `timestamp`, `to`, `type`, `ce_id`, `event_time`
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY `ce_id` ORDER BY `read_at`) AS `nth` FROM `smtp_delivered`
)
WHERE `nth` = 1;

-- What came for it and is no such event.
CREATE TABLE `smtp_delivered_dead_letter` (
  `body` BYTES,                      -- as it came
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `received` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `reason` AS CAST(`headers`['hookbridge-reason'] AS STRING),
  `detail` AS CAST(`headers`['hookbridge-detail'] AS STRING),
  `webhook` AS CAST(`headers`['hookbridge-webhook'] AS STRING),
  `sender` AS CAST(`headers`['hookbridge-caller'] AS STRING)
) WITH (
  'connector' = 'kafka',
  'topic' = 'opptima.smtp.delivered.dead-letter',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-smtp-delivered',
  'scan.startup.mode' = 'earliest-offset',
  'format' = 'raw'
);
