-- The events of the webhook email-marketing-click in ClickHouse: each once after a merge, and with FINAL at once.
CREATE TABLE email_marketing_click (
  `ce_id` UUID,                      -- the same for every record of one event
  `campid` String,                   -- the record's key
  `event_time` DateTime64(3, 'UTC'),
  `browser` Nullable(String),        -- the browser
  `campaignName` Nullable(String),   -- the campaign's name
  `cityName` Nullable(String),       -- the city of the click, which may be imprecise
  `contactId` Nullable(String),      -- the contact
  `countryName` Nullable(String),    -- its country
  `destination` Nullable(String),    -- the address that was clicked
  `device_type` Nullable(String),    -- the kind of device
  `email` Nullable(String),          -- the recipient's address
  `event` Nullable(String),          -- where it is there, always this, in any case
  `latitude` Nullable(Float64),      -- its latitude
  `longitude` Nullable(Float64),     -- its longitude
  `regionName` Nullable(String),     -- its region, state or department
  `relid` Nullable(String),          -- the customer's account
  `subject` Nullable(String),        -- the subject line
  `timestamp` Nullable(String),      -- the event's time, as the sender writes it
  `type` Nullable(String),           -- where it is there, always this, in any case
  `body` String                      -- as the sender wrote it
) ENGINE = ReplacingMergeTree
ORDER BY `ce_id`;

-- The records, which the view below takes from the topic to that table.
CREATE TABLE email_marketing_click_queue (
  `body` String
) ENGINE = Kafka
SETTINGS
  kafka_broker_list = 'localhost:9092',
  kafka_topic_list = 'opptima.email-marketing.click',
  kafka_group_name = 'clickhouse-email-marketing-click',
  kafka_format = 'RawBLOB';

CREATE MATERIALIZED VIEW email_marketing_click_reader TO email_marketing_click AS SELECT
  toUUIDOrZero(`_headers.value`[indexOf(`_headers.name`, 'ce_id')]) AS `ce_id`,
  `_key` AS `campid`,
  assumeNotNull(`_timestamp_ms`) AS `event_time`,
  JSONExtract(`body`, 'browser', 'Nullable(String)') AS `browser`,
  JSONExtract(`body`, 'campaignName', 'Nullable(String)') AS `campaignName`,
  JSONExtract(`body`, 'cityName', 'Nullable(String)') AS `cityName`,
  JSONExtract(`body`, 'contactId', 'Nullable(String)') AS `contactId`,
  JSONExtract(`body`, 'countryName', 'Nullable(String)') AS `countryName`,
  JSONExtract(`body`, 'destination', 'Nullable(String)') AS `destination`,
  JSONExtract(`body`, 'device_type', 'Nullable(String)') AS `device_type`,
  JSONExtract(`body`, 'email', 'Nullable(String)') AS `email`,
  JSONExtract(`body`, 'event', 'Nullable(String)') AS `event`,
  JSONExtract(`body`, 'latitude', 'Nullable(Float64)') AS `latitude`,
  JSONExtract(`body`, 'longitude', 'Nullable(Float64)') AS `longitude`,
  JSONExtract(`body`, 'regionName', 'Nullable(String)') AS `regionName`,
  JSONExtract(`body`, 'relid', 'Nullable(String)') AS `relid`,
  JSONExtract(`body`, 'subject', 'Nullable(String)') AS `subject`,
  JSONExtract(`body`, 'timestamp', 'Nullable(String)') AS `timestamp`,
  JSONExtract(`body`, 'type', 'Nullable(String)') AS `type`,
  `body`
FROM email_marketing_click_queue;

-- The events of the webhook email-marketing-sent in ClickHouse: each once after a merge, and with FINAL at once.
CREATE TABLE email_marketing_sent (
  `ce_id` UUID,                      -- the same for every record of one event
  `campid` String,                   -- the record's key
  `event_time` DateTime64(3, 'UTC'),
  `contactid` Nullable(String),      -- the contact
  `event` Nullable(String),          -- where it is there, always this, in any case
  `origin` Nullable(String),         -- always Web
  `relid` Nullable(String),          -- the customer's account
  `response` Nullable(String),       -- the provider's own answer
  `status` Nullable(String),         -- the result, in Spanish prose
  `timestamp` Nullable(String),      -- the event's time, as the sender writes it
  `to` Nullable(String),             -- the recipient's address
  `type` Nullable(String),           -- where it is there, always this, in any case
  `body` String                      -- as the sender wrote it
) ENGINE = ReplacingMergeTree
ORDER BY `ce_id`;

-- The records, which the view below takes from the topic to that table.
CREATE TABLE email_marketing_sent_queue (
  `body` String
) ENGINE = Kafka
SETTINGS
  kafka_broker_list = 'localhost:9092',
  kafka_topic_list = 'opptima.email-marketing.sent',
  kafka_group_name = 'clickhouse-email-marketing-sent',
  kafka_format = 'RawBLOB';

CREATE MATERIALIZED VIEW email_marketing_sent_reader TO email_marketing_sent AS SELECT
  toUUIDOrZero(`_headers.value`[indexOf(`_headers.name`, 'ce_id')]) AS `ce_id`,
  `_key` AS `campid`,
  assumeNotNull(`_timestamp_ms`) AS `event_time`,
  JSONExtract(`body`, 'contactid', 'Nullable(String)') AS `contactid`,
  JSONExtract(`body`, 'event', 'Nullable(String)') AS `event`,
  JSONExtract(`body`, 'origin', 'Nullable(String)') AS `origin`,
  JSONExtract(`body`, 'relid', 'Nullable(String)') AS `relid`,
  JSONExtract(`body`, 'response', 'Nullable(String)') AS `response`,
  JSONExtract(`body`, 'status', 'Nullable(String)') AS `status`,
  JSONExtract(`body`, 'timestamp', 'Nullable(String)') AS `timestamp`,
  JSONExtract(`body`, 'to', 'Nullable(String)') AS `to`,
  JSONExtract(`body`, 'type', 'Nullable(String)') AS `type`,
  `body`
FROM email_marketing_sent_queue;

-- The events of the webhook email-marketing-bounce in ClickHouse: each once after a merge, and with FINAL at once.
CREATE TABLE email_marketing_bounce (
  `ce_id` UUID,                      -- the same for every record of one event
  `campid` String,                   -- the record's key
  `event_time` DateTime64(3, 'UTC'),
  `contactid` Nullable(String),      -- the contact
  `event` Nullable(String),          -- where it is there, always this, in any case
  `origin` Nullable(String),         -- always Web
  `relid` Nullable(String),          -- the customer's account
  `response` Nullable(String),       -- the provider's own answer
  `status` Nullable(String),         -- the result, in Spanish prose
  `timestamp` Nullable(String),      -- the event's time, as the sender writes it
  `to` Nullable(String),             -- the recipient's address
  `type` Nullable(String),           -- where it is there, always this, in any case
  `body` String                      -- as the sender wrote it
) ENGINE = ReplacingMergeTree
ORDER BY `ce_id`;

-- The records, which the view below takes from the topic to that table.
CREATE TABLE email_marketing_bounce_queue (
  `body` String
) ENGINE = Kafka
SETTINGS
  kafka_broker_list = 'localhost:9092',
  kafka_topic_list = 'opptima.email-marketing.bounce',
  kafka_group_name = 'clickhouse-email-marketing-bounce',
  kafka_format = 'RawBLOB';

CREATE MATERIALIZED VIEW email_marketing_bounce_reader TO email_marketing_bounce AS SELECT
  toUUIDOrZero(`_headers.value`[indexOf(`_headers.name`, 'ce_id')]) AS `ce_id`,
  `_key` AS `campid`,
  assumeNotNull(`_timestamp_ms`) AS `event_time`,
  JSONExtract(`body`, 'contactid', 'Nullable(String)') AS `contactid`,
  JSONExtract(`body`, 'event', 'Nullable(String)') AS `event`,
  JSONExtract(`body`, 'origin', 'Nullable(String)') AS `origin`,
  JSONExtract(`body`, 'relid', 'Nullable(String)') AS `relid`,
  JSONExtract(`body`, 'response', 'Nullable(String)') AS `response`,
  JSONExtract(`body`, 'status', 'Nullable(String)') AS `status`,
  JSONExtract(`body`, 'timestamp', 'Nullable(String)') AS `timestamp`,
  JSONExtract(`body`, 'to', 'Nullable(String)') AS `to`,
  JSONExtract(`body`, 'type', 'Nullable(String)') AS `type`,
  `body`
FROM email_marketing_bounce_queue;

-- The events of the webhook smtp-bounce in ClickHouse: each once after a merge, and with FINAL at once.
CREATE TABLE smtp_bounce (
  `ce_id` UUID,                      -- the same for every record of one event
  `msgid` String,                    -- the record's key
  `event_time` DateTime64(3, 'UTC'),
  `certifiedEmail` Nullable(Bool),   -- true for certified mail, else absent
  `custom_headers` Nullable(String), -- the sender's own headers
  `event` Nullable(String),          -- where it is there, always this, in any case
  `ip` Nullable(String),             -- whence it was submitted; not for certified mail
  `origin` Nullable(String),         -- SMTP or API; not for certified mail
  `relid` Nullable(String),          -- the customer's account
  `response` Nullable(String),       -- the provider's own answer
  `sender` Nullable(String),         -- the sender's address; not for certified mail
  `status` Nullable(String),         -- the result, in Spanish prose
  `subject` Nullable(String),        -- the subject line
  `timestamp` Nullable(String),      -- the event's time, as the sender writes it
  `to` Nullable(String),             -- the recipient's address
  `type` Nullable(String),           -- where it is there, always this, in any case
  `body` String                      -- as the sender wrote it
) ENGINE = ReplacingMergeTree
ORDER BY `ce_id`;

-- The records, which the view below takes from the topic to that table.
CREATE TABLE smtp_bounce_queue (
  `body` String
) ENGINE = Kafka
SETTINGS
  kafka_broker_list = 'localhost:9092',
  kafka_topic_list = 'opptima.smtp.bounce',
  kafka_group_name = 'clickhouse-smtp-bounce',
  kafka_format = 'RawBLOB';

CREATE MATERIALIZED VIEW smtp_bounce_reader TO smtp_bounce AS SELECT
  toUUIDOrZero(`_headers.value`[indexOf(`_headers.name`, 'ce_id')]) AS `ce_id`,
  `_key` AS `msgid`,
  assumeNotNull(`_timestamp_ms`) AS `event_time`,
  JSONExtract(`body`, 'certifiedEmail', 'Nullable(Bool)') AS `certifiedEmail`,
  JSONExtract(`body`, 'custom_headers', 'Nullable(String)') AS `custom_headers`,
  JSONExtract(`body`, 'event', 'Nullable(String)') AS `event`,
  JSONExtract(`body`, 'ip', 'Nullable(String)') AS `ip`,
  JSONExtract(`body`, 'origin', 'Nullable(String)') AS `origin`,
  JSONExtract(`body`, 'relid', 'Nullable(String)') AS `relid`,
  JSONExtract(`body`, 'response', 'Nullable(String)') AS `response`,
  JSONExtract(`body`, 'sender', 'Nullable(String)') AS `sender`,
  JSONExtract(`body`, 'status', 'Nullable(String)') AS `status`,
  JSONExtract(`body`, 'subject', 'Nullable(String)') AS `subject`,
  JSONExtract(`body`, 'timestamp', 'Nullable(String)') AS `timestamp`,
  JSONExtract(`body`, 'to', 'Nullable(String)') AS `to`,
  JSONExtract(`body`, 'type', 'Nullable(String)') AS `type`,
  `body`
FROM smtp_bounce_queue;

-- The events of the webhook smtp-delivered in ClickHouse: each once after a merge, and with FINAL at once.
CREATE TABLE smtp_delivered (
  `ce_id` UUID,                      -- the same for every record of one event
  `msgid` String,                    -- the record's key
  `event_time` DateTime64(3, 'UTC'),
  `certifiedEmail` Nullable(Bool),   -- true for certified mail, else absent
  `event` Nullable(String),          -- where it is there, always this, in any case
  `ip` Nullable(String),             -- whence it was submitted
  `origin` Nullable(String),         -- SMTP or API; not for certified mail
  `relid` Nullable(String),          -- the customer's account
  `response` Nullable(String),       -- the provider's own answer; for certified mail the steps
  `status` Nullable(String),         -- the result, in Spanish prose
  `subject` Nullable(String),        -- the subject line
  `timestamp` Nullable(String),      -- the event's time, as the sender writes it
  `to` Nullable(String),             -- the recipient's address
  `type` Nullable(String),           -- where it is there, always this, in any case
  `body` String                      -- as the sender wrote it
) ENGINE = ReplacingMergeTree
ORDER BY `ce_id`;

-- The records, which the view below takes from the topic to that table.
CREATE TABLE smtp_delivered_queue (
  `body` String
) ENGINE = Kafka
SETTINGS
  kafka_broker_list = 'localhost:9092',
  kafka_topic_list = 'opptima.smtp.delivered',
  kafka_group_name = 'clickhouse-smtp-delivered',
  kafka_format = 'RawBLOB';

CREATE MATERIALIZED VIEW smtp_delivered_reader TO smtp_delivered AS SELECT
  toUUIDOrZero(`_headers.value`[indexOf(`_headers.name`, 'ce_id')]) AS `ce_id`,
  `_key` AS `msgid`,
  assumeNotNull(`_timestamp_ms`) AS `event_time`,
  JSONExtract(`body`, 'certifiedEmail', 'Nullable(Bool)') AS `certifiedEmail`,
  JSONExtract(`body`, 'event', 'Nullable(String)') AS `event`,
  JSONExtract(`body`, 'ip', 'Nullable(String)') AS `ip`,
  JSONExtract(`body`, 'origin', 'Nullable(String)') AS `origin`,
  JSONExtract(`body`, 'relid', 'Nullable(String)') AS `relid`,
  JSONExtract(`body`, 'response', 'Nullable(String)') AS `response`,
  JSONExtract(`body`, 'status', 'Nullable(String)') AS `status`,
  JSONExtract(`body`, 'subject', 'Nullable(String)') AS `subject`,
  JSONExtract(`body`, 'timestamp', 'Nullable(String)') AS `timestamp`,
  JSONExtract(`body`, 'to', 'Nullable(String)') AS `to`,
  JSONExtract(`body`, 'type', 'Nullable(String)') AS `type`,
  `body`
FROM smtp_delivered_queue;
