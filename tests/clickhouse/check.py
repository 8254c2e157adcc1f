"""Runs the DDL of `hookbridge schema --format clickhouse` in chdb, which is ClickHouse as a library, and the query
of the example over it. chdb has no background threads, so its Kafka engine does not run: here a table in its
place has the columns of the engine, and this script inserts the records.

check.py BROKERS CLICKS CAMPAIGNS DDL QUERY
"""

import json
import sys

from chdb import session
from clicks_per_hour import records


def statements(text):
    return [one for one in text.split(";\n") if one.strip()]


def insert(database, table, rows):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    database.query(f"INSERT INTO {table} FORMAT JSONEachRow {lines}")


def main(brokers, clicks, campaigns, ddl, query):
    database = session.Session()
    for statement in statements(open(ddl).read()):
        # ClickHouse's own parser takes it.
        text = statement.replace("\\", "\\\\").replace("'", "\\'")
        database.query(f"SELECT formatQuery('{text}')")
        if "ENGINE = Kafka" in statement:
            columns = "`_key` String, `_timestamp_ms` Nullable(DateTime64(3, 'UTC')),"
            columns += "`_headers.name` Array(String), `_headers.value` Array(String)"
            head = statement[: statement.index(")", statement.index("`body`"))]
            statement = f"{head.rstrip()}, {columns}) ENGINE = Null"
        database.query(statement)
    insert(database, "email_marketing_click_queue", (
        {
            "body": one.value().decode(),
            "_key": one.key().decode(),
            "_timestamp_ms": one.timestamp()[1] / 1000,
            "_headers.name": [name for name, _ in one.headers()],
            "_headers.value": [value.decode() for _, value in one.headers()],
        }
        for one in records(brokers, clicks)
    ))
    database.query("CREATE TABLE campaigns (campid String, name String) ENGINE = Memory")
    names = ({"campid": one.key().decode(), "name": one.value().decode()} for one in records(brokers, campaigns))
    insert(database, "campaigns", names)
    for line in str(database.query(open(query).read(), "JSONEachRow")).splitlines():
        row = json.loads(line)
        print(row.pop("key"), json.dumps(row, ensure_ascii=False), sep="\t")
    fields = "SELECT countIf(latitude = 4.6), countIf(latitude IS NULL), count() FROM email_marketing_click FINAL"
    print("fields", str(database.query(fields, "JSONCompactEachRow")).strip(), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
