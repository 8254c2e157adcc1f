"""Counts the clicks of each campaign and hour, with its name: what is in the topics now, in one pass.

./run BROKERS CLICKS CAMPAIGNS prints a line for each campaign and hour: `CAMPAIGN@HOUR`, and the name and
the count as JSON.
"""

import json
import sys
from collections import Counter
from datetime import datetime, timezone

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition


def records(brokers, topic):
    """Every record that is in the topic now."""
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": "clicks-per-hour",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    })
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, one, OFFSET_BEGINNING) for one in partitions])
    left = len(partitions)
    while left:
        record = consumer.poll(30)
        if record is None:
            sys.exit(f"{topic}: no record and no end within 30 s")
        if record.error() is None:
            yield record
        elif record.error().code() == -191:  # the end of a partition
            left -= 1
        else:
            raise KafkaException(record.error())
    consumer.close()


def read(record):
    """The record as a CloudEvent; its extension `partitionkey` is the record's key."""
    headers = dict(record.headers())
    return from_binary(KafkaMessage(headers, record.key(), record.value()), JSONFormat())


def main(brokers, clicks, campaigns):
    names = {one.key().decode(): one.value().decode() for one in records(brokers, campaigns)}
    seen, counts = set(), Counter()
    for record in records(brokers, clicks):
        event = read(record)
        if event.get_id() in seen:
            continue
        seen.add(event.get_id())
        # The record's timestamp is `time`, unless the topic refuses that.
        time = datetime.fromtimestamp(record.timestamp()[1] / 1000, timezone.utc)
        counts[event.get_extension("partitionkey"), time.strftime("%Y-%m-%dT%H:00:00Z")] += 1
    for (campaign, hour), count in sorted(counts.items()):
        if campaign in names:
            row = json.dumps({"campaign": names[campaign], "clicks": count}, ensure_ascii=False)
            print(f"{campaign}@{hour}\t{row}")


if __name__ == "__main__":
    main(*sys.argv[1:])
