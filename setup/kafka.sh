#!/usr/bin/env bash
# Fetches a Kafka broker from Maven Central into third_party/kafka, one jar after the other: what `setup/kafka_broker.py` starts.
# KAFKA_LIBS names the folder `libs` of a Kafka of the user's own: then nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
kafka=4.1.0
target=third_party/kafka
setup/packages.sh java:default-jdk-headless
if [ -n "${KAFKA_LIBS:-}" ]; then
    ls "$KAFKA_LIBS"/kafka_2.1*.jar >/dev/null 2>&1 || {
        echo "setup: KAFKA_LIBS=$KAFKA_LIBS has no kafka_2.1*.jar. Point it to the folder libs of an unpacked Kafka, or unset it: then Kafka $kafka is fetched" >&2
        exit 1
    }
    exit 0
fi
[ "$(cat $target/version 2>/dev/null)" != $kafka ] || exit 0
setup/packages.sh mvn:maven
echo "setup: fetching Kafka $kafka"
partial=$target.partial
rm -rf $target $partial
mkdir -p $partial/libs
trap 'rm -rf $partial' EXIT
cat > $partial/pom.xml <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>purlin</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$kafka</version>
    </dependency>
  </dependencies>
</project>
POM
mvn -q -B -Dstyle.color=never -f $partial/pom.xml dependency:copy-dependencies -DoutputDirectory=libs -DincludeScope=runtime >&2 || {
    echo "setup: Kafka $kafka could not be fetched from Maven Central (Maven's message is above). Give Maven a mirror that it reaches (~/.m2/settings.xml), or set KAFKA_LIBS to the folder libs of a Kafka that is on this machine" >&2
    exit 1
}
rm $partial/pom.xml
echo $kafka > $partial/version
mv $partial $target
trap - EXIT
echo "setup: $(du -sh $target | cut -f1) in $target"
