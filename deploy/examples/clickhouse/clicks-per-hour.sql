-- Counts the clicks of each campaign and hour, with its name. Over the tables of
-- `hookbridge schema --webhook email-marketing-click --format clickhouse`, and one of campaigns.

SELECT
  campid || '@' || formatDateTime(toStartOfHour(event_time), '%Y-%m-%dT%H:00:00Z') AS key,
  name AS campaign,
  count() AS clicks
FROM email_marketing_click FINAL
INNER JOIN campaigns USING (campid)
GROUP BY campid, name, toStartOfHour(event_time)
ORDER BY key
