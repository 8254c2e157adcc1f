-- What came in and was not understood today, by reason and sender. After the same tables.

SET 'table.local-time-zone' = 'UTC';

SELECT reason, detail, sender, COUNT(*) AS bodies, MAX(received) AS last
FROM email_marketing_click_dead_letter
WHERE CAST(received AS DATE) = CURRENT_DATE
GROUP BY reason, detail, sender;
