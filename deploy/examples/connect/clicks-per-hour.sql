-- Counts the clicks of each campaign and hour, with its name. Over the tables of
-- `hookbridge schema --webhook email-marketing-click --format postgres`, and one of campaigns.

SELECT campid || '@' || to_char(date_trunc('hour', event_time AT TIME ZONE 'UTC'), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  json_build_object('campaign', name, 'clicks', count(*))
FROM email_marketing_click JOIN campaigns USING (campid)
GROUP BY campid, name, date_trunc('hour', event_time AT TIME ZONE 'UTC')
ORDER BY 1;
