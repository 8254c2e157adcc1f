-- The events of the webhook email-marketing-click in ksqlDB. Cast fields that are numbers: a record with a field
-- that is not of its type would be skipped. ROWTIME is the event's time.
CREATE STREAM email_marketing_click (
  `campid` STRING KEY,               -- the record's key
  `browser` STRING,                  -- the browser
  `campaignName` STRING,             -- the campaign's name
  `cityName` STRING,                 -- the city of the click, which may be imprecise
  `contactId` STRING,                -- the contact
  `countryName` STRING,              -- its country
  `destination` STRING,              -- the address that was clicked
  `device_type` STRING,              -- the kind of device
  `email` STRING,                    -- the recipient's address
  `event` STRING,                    -- where it is there, always this, in any case
  `latitude` STRING,                 -- its latitude
  `longitude` STRING,                -- its longitude
  `regionName` STRING,               -- its region, state or department
  `relid` STRING,                    -- the customer's account
  `subject` STRING,                  -- the subject line
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `type` STRING,                     -- where it is there, always this, in any case
  `ce_id` BYTES HEADER('ce_id')      -- the same for every record of one event
) WITH (
  KAFKA_TOPIC = 'opptima.email-marketing.click',
  KEY_FORMAT = 'KAFKA',
  VALUE_FORMAT = 'JSON'
);

-- Each event once: the first record with its ce_id.
CREATE TABLE email_marketing_click_once AS SELECT
  FROM_BYTES(`ce_id`, 'utf8') AS `ce_id`,
  EARLIEST_BY_OFFSET(ROWTIME) AS `event_time`, -- in milliseconds
  EARLIEST_BY_OFFSET(`campid`) AS `campid`,
  EARLIEST_BY_OFFSET(`browser`) AS `browser`,
  EARLIEST_BY_OFFSET(`campaignName`) AS `campaignName`,
  EARLIEST_BY_OFFSET(`cityName`) AS `cityName`,
  EARLIEST_BY_OFFSET(`contactId`) AS `contactId`,
  EARLIEST_BY_OFFSET(`countryName`) AS `countryName`,
  EARLIEST_BY_OFFSET(`destination`) AS `destination`,
  EARLIEST_BY_OFFSET(`device_type`) AS `device_type`,
  EARLIEST_BY_OFFSET(`email`) AS `email`,
  EARLIEST_BY_OFFSET(`event`) AS `event`,
  EARLIEST_BY_OFFSET(`latitude`) AS `latitude`,
  EARLIEST_BY_OFFSET(`longitude`) AS `longitude`,
  EARLIEST_BY_OFFSET(`regionName`) AS `regionName`,
  EARLIEST_BY_OFFSET(`relid`) AS `relid`,
  EARLIEST_BY_OFFSET(`subject`) AS `subject`,
  EARLIEST_BY_OFFSET(`timestamp`) AS `timestamp`,
  EARLIEST_BY_OFFSET(`type`) AS `type`
FROM email_marketing_click
GROUP BY FROM_BYTES(`ce_id`, 'utf8')
EMIT CHANGES;

-- The events of the webhook email-marketing-sent in ksqlDB. Cast fields that are numbers: a record with a field
-- that is not of its type would be skipped. ROWTIME is the event's time.
CREATE STREAM email_marketing_sent (
  `campid` STRING KEY,               -- the record's key
  `contactid` STRING,                -- the contact
  `event` STRING,                    -- where it is there, always this, in any case
  `origin` STRING,                   -- always Web
  `relid` STRING,                    -- the customer's account
  `response` STRING,                 -- the provider's own answer
  `status` STRING,                   -- the result, in Spanish prose
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `to` STRING,                       -- the recipient's address
  `type` STRING,                     -- where it is there, always this, in any case
  `ce_id` BYTES HEADER('ce_id')      -- the same for every record of one event
) WITH (
  KAFKA_TOPIC = 'opptima.email-marketing.sent',
  KEY_FORMAT = 'KAFKA',
  VALUE_FORMAT = 'JSON'
);

-- Each event once: the first record with its ce_id.
CREATE TABLE email_marketing_sent_once AS SELECT
  FROM_BYTES(`ce_id`, 'utf8') AS `ce_id`,
  EARLIEST_BY_OFFSET(ROWTIME) AS `event_time`, -- in milliseconds
  EARLIEST_BY_OFFSET(`campid`) AS `campid`,
  EARLIEST_BY_OFFSET(`contactid`) AS `contactid`,
  EARLIEST_BY_OFFSET(`event`) AS `event`,
  EARLIEST_BY_OFFSET(`origin`) AS `origin`,
  EARLIEST_BY_OFFSET(`relid`) AS `relid`,
  EARLIEST_BY_OFFSET(`response`) AS `response`,
  EARLIEST_BY_OFFSET(`status`) AS `status`,
  EARLIEST_BY_OFFSET(`timestamp`) AS `timestamp`,
  EARLIEST_BY_OFFSET(`to`) AS `to`,
  EARLIEST_BY_OFFSET(`type`) AS `type`
FROM email_marketing_sent
GROUP BY FROM_BYTES(`ce_id`, 'utf8')
EMIT CHANGES;

-- The events of the webhook email-marketing-bounce in ksqlDB. Cast fields that are numbers: a record with a field
-- that is not of its type would be skipped. ROWTIME is the event's time.
CREATE STREAM email_marketing_bounce (
  `campid` STRING KEY,               -- the record's key
  `contactid` STRING,                -- the contact
  `event` STRING,                    -- where it is there, always this, in any case
  `origin` STRING,                   -- always Web
  `relid` STRING,                    -- the customer's account
  `response` STRING,                 -- the provider's own answer
  `status` STRING,                   -- the result, in Spanish prose
  `timestamp` STRING,                -- the event's time, as the sender writes it
  `to` STRING,                       -- the recipient's address
  `type` STRING,                     -- where it is there, always this, in any case
  `ce_id` BYTES HEADER('ce_id')      -- the same for every record of one event
) WITH (
  KAFKA_TOPIC = 'opptima.email-marketing.bounce',
  KEY_FORMAT = 'KAFKA',
  VALUE_FORMAT = 'JSON'
);

-- Each event once: the first record with its ce_id.
CREATE TABLE email_marketing_bounce_once AS SELECT
  FROM_BYTES(`ce_id`, 'utf8') AS `ce_id`,
  EARLIEST_BY_OFFSET(ROWTIME) AS `event_time`, -- in milliseconds
  EARLIEST_BY_OFFSET(`campid`) AS `campid`,
  EARLIEST_BY_OFFSET(`contactid`) AS `contactid`,
  EARLIEST_BY_OFFSET(`event`) AS `event`,
  EARLIEST_BY_OFFSET(`origin`) AS `origin`,
  EARLIEST_BY_OFFSET(`relid`) AS `relid`,
  EARLIEST_BY_OFFSET(`response`) AS `response`,
  EARLIEST_BY_OFFSET(`status`) AS `status`,
  EARLIEST_BY_OFFSET(`timestamp`) AS `timestamp`,
  EARLIEST_BY_OFFSET(`to`) AS `to`,
  EARLIEST_BY_OFFSET(`type`) AS `type`
FROM email_marketing_bounce
GROUP BY FROM_BYTES(`ce_id`, 'utf8')
EMIT CHANGES;

-- The events of the webhook smtp-bounce in ksqlDB. Cast fields that are numbers: a record with a field
-- that is not of its type would be skipped. ROWTIME is the event's time.
CREATE STREAM smtp_bounce (
  `msgid` STRING KEY,                -- the record's key
  `certifiedEmail` STRING,           -- true for certified mail, else absent
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
  `ce_id` BYTES HEADER('ce_id')      -- the same for every record of one event
) WITH (
  KAFKA_TOPIC = 'opptima.smtp.bounce',
  KEY_FORMAT = 'KAFKA',
  VALUE_FORMAT = 'JSON'
);

-- Each event once: the first record with its ce_id.
CREATE TABLE smtp_bounce_once AS SELECT
  FROM_BYTES(`ce_id`, 'utf8') AS `ce_id`,
  EARLIEST_BY_OFFSET(ROWTIME) AS `event_time`, -- in milliseconds
  EARLIEST_BY_OFFSET(`msgid`) AS `msgid`,
  EARLIEST_BY_OFFSET(`certifiedEmail`) AS `certifiedEmail`,
  EARLIEST_BY_OFFSET(`custom_headers`) AS `custom_headers`,
  EARLIEST_BY_OFFSET(`event`) AS `event`,
  EARLIEST_BY_OFFSET(`ip`) AS `ip`,
  EARLIEST_BY_OFFSET(`origin`) AS `origin`,
  EARLIEST_BY_OFFSET(`relid`) AS `relid`,
  EARLIEST_BY_OFFSET(`response`) AS `response`,
  EARLIEST_BY_OFFSET(`sender`) AS `sender`,
  EARLIEST_BY_OFFSET(`status`) AS `status`,
  EARLIEST_BY_OFFSET(`subject`) AS `subject`,
  EARLIEST_BY_OFFSET(`timestamp`) AS `timestamp`,
  EARLIEST_BY_OFFSET(`to`) AS `to`,
  EARLIEST_BY_OFFSET(`type`) AS `type`
FROM smtp_bounce
GROUP BY FROM_BYTES(`ce_id`, 'utf8')
EMIT CHANGES;

-- The events of the webhook smtp-delivered in ksqlDB. Cast fields that are numbers: a record with a field
-- that is not of its type would be skipped. ROWTIME is the event's time.
CREATE STREAM smtp_delivered (
  `msgid` STRING KEY,                -- the record's key
  `certifiedEmail` STRING,           -- true for certified mail, else absent
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
  `ce_id` BYTES HEADER('ce_id')      -- the same for every record of one event
) WITH (
  KAFKA_TOPIC = 'opptima.smtp.delivered',
  KEY_FORMAT = 'KAFKA',
  VALUE_FORMAT = 'JSON'
);

-- Each event once: the first record with its ce_id.
CREATE TABLE smtp_delivered_once AS SELECT
  FROM_BYTES(`ce_id`, 'utf8') AS `ce_id`,
  EARLIEST_BY_OFFSET(ROWTIME) AS `event_time`, -- in milliseconds
  EARLIEST_BY_OFFSET(`msgid`) AS `msgid`,
  EARLIEST_BY_OFFSET(`certifiedEmail`) AS `certifiedEmail`,
  EARLIEST_BY_OFFSET(`event`) AS `event`,
  EARLIEST_BY_OFFSET(`ip`) AS `ip`,
  EARLIEST_BY_OFFSET(`origin`) AS `origin`,
  EARLIEST_BY_OFFSET(`relid`) AS `relid`,
  EARLIEST_BY_OFFSET(`response`) AS `response`,
  EARLIEST_BY_OFFSET(`status`) AS `status`,
  EARLIEST_BY_OFFSET(`subject`) AS `subject`,
  EARLIEST_BY_OFFSET(`timestamp`) AS `timestamp`,
  EARLIEST_BY_OFFSET(`to`) AS `to`,
  EARLIEST_BY_OFFSET(`type`) AS `type`
FROM smtp_delivered
GROUP BY FROM_BYTES(`ce_id`, 'utf8')
EMIT CHANGES;
