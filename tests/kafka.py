"""A Kafka broker on this machine: one process, which keeps its records in a folder."""
import glob
import os
import shutil
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIBS = os.environ.get('KAFKA_LIBS') or os.path.join(ROOT, 'third_party', 'kafka', 'libs')

LOG4J = """Configuration:
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d %p %c: %m%n"
  Root:
    level: WARN
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: out
"""

# One node that is broker and controller, for clients of this machine.
SETTINGS = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="secret";
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


def missing():
  """Why there is no broker, if there is none."""
  if shutil.which('java') is None:
    return 'Java is missing: apt-get install default-jdk-headless'
  if not glob.glob(os.path.join(LIBS, 'kafka_2.1*.jar')):
    return 'Kafka is missing: setup/kafka.sh'
  return None


def free_port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


class Broker:
  def __init__(self, folder):
    self.folder = str(folder)
    self.port, self.sasl_port, controller = free_port(), free_port(), free_port()
    self.address = '127.0.0.1:%d' % self.port
    self.sasl_address = '127.0.0.1:%d' % self.sasl_port
    self.settings = os.path.join(self.folder, 'server.properties')
    with open(self.settings, 'w') as f:
      f.write(SETTINGS.format(port=self.port, sasl=self.sasl_port, controller=controller, logs=os.path.join(self.folder, 'logs')))
    with open(os.path.join(self.folder, 'log4j2.yaml'), 'w') as f:
      f.write(LOG4J)
    self._java('kafka.tools.StorageTool', 'format', '--cluster-id', 'cHVybGluLXB1cmxpbi0xMg', '--config', self.settings)
    self.process = None
    self.start()

  def _command(self, *arguments):
    return ['java', '-Xms64m', '-Xmx512m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1',
            '-Dlog4j2.configurationFile=' + os.path.join(self.folder, 'log4j2.yaml'),
            '-cp', os.path.join(LIBS, '*'), *arguments]

  def _java(self, *arguments):
    done = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  def start(self):
    with open(os.path.join(self.folder, 'broker.log'), 'ab') as log:
      self.process = subprocess.Popen(
          self._command('kafka.Kafka', self.settings), stdout=log, stderr=log, start_new_session=True)
    end = time.time() + 120
    while time.time() < end and self.process.poll() is None:
      with socket.socket() as s:
        if s.connect_ex(('127.0.0.1', self.port)) == 0:
          return
      time.sleep(0.1)
    with open(os.path.join(self.folder, 'broker.log')) as log:
      raise AssertionError('the broker did not start:\n' + log.read())

  def stop(self, how=signal.SIGTERM):
    self.process.send_signal(how)
    self.process.wait(timeout=120)
