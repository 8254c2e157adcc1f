-- What came in and was not understood today, by reason and sender.

SELECT reason, detail, sender, count(*) AS bodies, max(received) AS last
FROM email_marketing_click_dead_letter
WHERE received >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
GROUP BY reason, detail, sender
ORDER BY bodies DESC;
