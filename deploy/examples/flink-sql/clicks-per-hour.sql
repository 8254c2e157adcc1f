-- Counts the clicks of each campaign and hour, with its name. After the tables of
-- `hookbridge schema --webhook email-marketing-click --format flink`.

SET 'table.local-time-zone' = 'UTC';
-- How long ids are remembered, and counts kept: a click may be 7 days late.
SET 'table.exec.state.ttl' = '8 d';
-- Of a topic with fewer partitions than the job has readers, some have nothing to read.
SET 'table.exec.source.idle-timeout' = '10 s';

CREATE TABLE campaigns (
  campid STRING,
  name STRING,
  PRIMARY KEY (campid) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = '${campaigns}',
  'properties.bootstrap.servers' = '${brokers}',
  'key.format' = 'raw',
  'value.format' = 'raw',
  'value.fields-include' = 'EXCEPT_KEY'
);

-- A count comes again whenever it changes; the last one of a key holds.
CREATE TABLE counts (
  campid STRING,
  `hour` STRING,
  campaign STRING,
  clicks BIGINT,
  PRIMARY KEY (campid, `hour`) NOT ENFORCED
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = '${counts}',
  'properties.bootstrap.servers' = '${brokers}',
  'key.format' = 'json',
  'value.format' = 'json'
);

-- Not a window: that would leave out clicks that come after its end.
INSERT INTO counts
SELECT hours.campid, hours.`hour`, campaigns.name, hours.clicks
FROM (
  SELECT campid, DATE_FORMAT(event_time, 'yyyy-MM-dd''T''HH:00:00''Z''') AS `hour`, COUNT(*) AS clicks
  FROM email_marketing_click_once
  GROUP BY campid, DATE_FORMAT(event_time, 'yyyy-MM-dd''T''HH:00:00''Z''')
) AS hours
JOIN campaigns ON hours.campid = campaigns.campid;
