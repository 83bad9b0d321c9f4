"""The example `copy` of sdk/kafka on a real broker, with another client (confluent-kafka) that writes and reads at the other end.

Needs Java, and `setup/kafka.sh` where no KAFKA_LIBS is given.
"""
import collections
import os
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kafka  # pylint: disable=wrong-import-position
from all import KAFKA  # pylint: disable=wrong-import-position
import example_programs  # pylint: disable=wrong-import-position

ROOT = kafka.ROOT


@pytest.fixture(name='broker', scope='module')
def _broker(tmp_path_factory):
  if os.environ.get('CI'):
    subprocess.run(['setup/kafka.sh'], cwd=ROOT, check=True)
  elif kafka.missing():
    pytest.skip(kafka.missing())
  broker = kafka.Broker(tmp_path_factory.mktemp('kafka'))
  yield broker
  broker.stop()


@pytest.fixture(name='program', scope='module')
def _program():
  """The example. PURLIN_COPY names one that is built already."""
  return example_programs.built('copy', KAFKA, env='PURLIN_COPY')


class Topic:
  """A topic, written and read by the other client."""
  def __init__(self, broker, name, partitions):
    from confluent_kafka.admin import AdminClient, NewTopic
    self.broker, self.name = broker, name
    admin = AdminClient({'bootstrap.servers': broker.address})
    for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
      future.result(60)

  def write(self, values, partition=0):
    from confluent_kafka import Producer
    producer = Producer({'bootstrap.servers': self.broker.address})
    for value in values:
      producer.produce(self.name, key='k%s' % value, value=str(value), partition=partition, timestamp=1_700_000_000_000 + value,
                       headers=[('number', str(value))])
      producer.poll(0)
    assert producer.flush(120) == 0

  def read(self, at_least, seconds=120):
    """So many records that are committed, and what comes within two seconds after them."""
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({'bootstrap.servers': self.broker.address, 'group.id': 'test', 'isolation.level': 'read_committed'})
    partitions = consumer.list_topics(self.name, timeout=60).topics[self.name].partitions
    consumer.assign([TopicPartition(self.name, partition, 0) for partition in partitions])
    records, end = [], time.time() + seconds
    while time.time() < end:
      record = consumer.poll(1)
      if record is not None and not record.error():
        records.append(record)
        if len(records) >= at_least:
          end = min(end, time.time() + 2)
    consumer.close()
    return records


def copy(program, broker, *arguments):
  return [program, '--brokers=' + broker.address, *arguments]


def end(command, **kwargs):
  return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **kwargs)


def numbers(records):
  return collections.Counter(int(record.value()) for record in records)


def test_records_arrive_as_they_were(broker, program):
  source, target = Topic(broker, 'orders', 3), Topic(broker, 'orders-copy', 3)
  for partition in range(3):
    source.write(range(partition * 1000, partition * 1000 + 1000), partition)
  done = end(copy(program, broker, '--from=orders', '--to=orders-copy', '--to_end'))
  assert (done.returncode, done.stdout) == (0, '3000 records\n'), done.stderr
  records = target.read(3000)
  assert numbers(records) == collections.Counter(range(3000))
  for record in records:
    number = record.value().decode()
    assert record.key().decode() == 'k' + number
    assert record.headers() == [('number', number.encode())]
    assert record.timestamp()[1] == 1_700_000_000_000 + int(number)


def test_a_group_goes_on_where_the_last_job_was(broker, program):
  source, target = Topic(broker, 'daily', 2), Topic(broker, 'daily-copy', 1)
  source.write(range(100))
  command = copy(program, broker, '--from=daily', '--to=daily-copy', '--group=copier', '--to_end')
  assert end(command).stdout == '100 records\n'
  source.write(range(100, 150), 1)
  assert end(command).stdout == '50 records\n'
  assert numbers(target.read(150)) == collections.Counter(range(150))


def test_a_broker_that_is_restarted_costs_no_record(broker, program):
  source, target = Topic(broker, 'restart', 2), Topic(broker, 'restart-copy', 2)
  source.write(range(1000))
  job = subprocess.Popen(copy(program, broker, '--from=restart', '--to=restart-copy'), stderr=subprocess.PIPE, text=True)
  try:
    target.read(1000)
    # Records that are written before it is gone, and after.
    source.write(range(1000, 21000), 1)
    broker.stop(signal.SIGKILL)
    time.sleep(3)
    assert job.poll() is None
    broker.start()
    source.write(range(21000, 22000))
    assert numbers(target.read(22000)).keys() == set(range(22000))
    assert job.poll() is None
  finally:
    job.kill()


def test_a_topic_is_written_exactly_once_though_the_broker_is_killed(broker, program):
  source, target = Topic(broker, 'once', 2), Topic(broker, 'once-copy', 4)
  source.write(range(1000))
  job = subprocess.Popen(copy(program, broker, '--from=once', '--to=once-copy', '--exactly_once=copier', '--shards=3'), text=True)
  try:
    assert numbers(target.read(1000)) == collections.Counter(range(1000))
    source.write(range(1000, 21000), 1)
    time.sleep(0.3)
    broker.stop(signal.SIGKILL)
    broker.start()
    source.write(range(21000, 22000))
    assert numbers(target.read(22000)) == collections.Counter(range(22000))
    assert job.poll() is None
  finally:
    job.kill()


def test_errors_say_where_and_what_to_do(broker, program):
  Topic(broker, 'small', 1)
  missing = end(copy(program, broker, '--from=smal', '--to=small', '--to_end'))
  assert missing.returncode == 1
  assert 'there is no topic "smal" at %s; there is "small"' % broker.address in missing.stderr
  source = Topic(broker, 'large', 1)
  source.write([1])
  nowhere = end(copy(program, broker, '--from=large', '--to=nowhere', '--to_end'))
  assert nowhere.returncode == 1 and 'there is no topic "nowhere" at ' + broker.address in nowhere.stderr, nowhere.stderr
  shards = end(copy(program, broker, '--from=large', '--to=small', '--to_end', '--exactly_once=x', '--shards=2'))
  assert 'there are 2 shards and 1 partitions' in shards.stderr, shards.stderr
  gone = end([program, '--brokers=127.0.0.1:1', '--from=x', '--to=y', '--to_end', '--timeout=3'])
  assert gone.returncode == 1 and 'Kafka at 127.0.0.1:1 does not answer' in gone.stderr, gone.stderr


def test_a_login_that_is_refused_is_told_at_once(broker, program):
  source = Topic(broker, 'secret', 1)
  source.write([1, 2, 3])
  login = ['--from=secret', '--to=secret', '--to_end', '--property=security.protocol=SASL_PLAINTEXT', '--property=sasl.mechanism=PLAIN',
           '--property=sasl.username=ann']
  begin = time.time()
  refused = end([program, '--brokers=' + broker.sasl_address, *login, '--property=sasl.password=wrong'])
  assert refused.returncode == 1
  assert 'Kafka at %s refused the login: ' % broker.sasl_address in refused.stderr, refused.stderr
  assert 'wrong' not in refused.stderr.replace('wrong credentials', '')
  assert time.time() - begin < 60
  good = end([program, '--brokers=' + broker.sasl_address, *login, '--property=sasl.password=secret'])
  assert (good.returncode, good.stdout) == (0, '3 records\n'), good.stderr
