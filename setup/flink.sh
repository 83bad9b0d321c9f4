#!/usr/bin/env bash
# Fetches Apache Flink and Beam's runner for it into third_party/flink, or one of the two:
#   dist          Flink's scripts, libraries and plugins, from the Python package index: third_party/flink/dist, 235 MB
#   job-server    Beam's job server for this Flink, from Maven Central: third_party/flink/job-server.jar, 150 MB
# FLINK_LOCATION names a Flink of the user's own, and FLINK_JOB_SERVER_JAR a job server: then that part is not fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
flink=1.19.3
# Beam ships one jar with all that its runner needs. Where the registry lacks it, it is made of the runner and what that depends on.
beam=2.62.0
parts=${*:-dist job-server}
target=third_party/flink
setup/packages.sh java:default-jdk-headless
fail() {
    echo "setup: $1" >&2
    exit 1
}

wants() { [[ " $parts " == *" $1 "* ]]; }

if ! wants dist; then
    :
elif [ -n "${FLINK_LOCATION:-}" ]; then
    [ -x "$FLINK_LOCATION/bin/jobmanager.sh" ] || fail "FLINK_LOCATION=$FLINK_LOCATION has no bin/jobmanager.sh. Point it to an unpacked Flink, or unset it: then Flink $flink is fetched"
elif [ "$(cat $target/dist/version 2>/dev/null)" != $flink ]; then
    echo "setup: fetching Flink $flink"
    partial=$target/dist.partial
    rm -rf $target/dist $partial
    mkdir -p $partial
    trap 'rm -rf $partial' EXIT
    pip=(python3 -m pip download -q --disable-pip-version-check --no-deps -d $partial)
    { "${pip[@]}" --no-binary :all: "apache-flink-libraries==$flink" && "${pip[@]}" --only-binary :all: --python-version 3.11 "apache-flink==$flink"; } ||
        fail "Flink $flink could not be fetched from the Python package index (pip's message is above). Give pip an index that it reaches (PIP_INDEX_URL), or set FLINK_LOCATION to a Flink that is on this machine"
    # The libraries are in one package, the scripts and settings in the other.
    tar -xzf $partial/apache*flink*libraries*.tar.gz -C $partial --strip-components=1 --wildcards '*/deps/*'
    python3 -m zipfile -e $partial/apache_flink-*.whl $partial/wheel
    mv $partial/deps $partial/dist
    rm -rf $partial/dist/examples
    for part in bin conf; do cp -r $partial/wheel/pyflink/$part $partial/dist/; done
    chmod +x $partial/dist/bin/*
    mkdir -p $partial/dist/log
    echo $flink > $partial/dist/version
    mv $partial/dist $target/dist
    rm -rf $partial
    trap - EXIT
    echo "setup: $(du -sh $target/dist | cut -f1) in $target/dist"
fi

if ! wants job-server; then
    :
elif [ -n "${FLINK_JOB_SERVER_JAR:-}" ]; then
    [ -f "$FLINK_JOB_SERVER_JAR" ] || fail "FLINK_JOB_SERVER_JAR=$FLINK_JOB_SERVER_JAR is no file. Point it to Beam's job server for Flink (beam-runners-flink-VERSION-job-server-VERSION.jar), or unset it: then one is fetched"
elif [ "$(cat $target/job-server.version 2>/dev/null)" != "$flink $beam with logging" ]; then
    setup/packages.sh mvn:maven
    echo "setup: fetching Beam's job server $beam for Flink ${flink%.*}"
    partial=$target/job-server.partial
    rm -rf $partial $target/job-server.*
    mkdir -p $partial/jars
    trap 'rm -rf $partial' EXIT
    cat > $partial/pom.xml <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>purlin</groupId>
  <artifactId>flink-job-server</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.beam</groupId>
      <artifactId>beam-runners-flink-${flink%.*}</artifactId>
      <version>$beam</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-jdk14</artifactId>
      <version>1.7.30</version>
    </dependency>
  </dependencies>
</project>
POM
    mvn=(mvn -q -B -f $partial/pom.xml)
    if "${mvn[@]}" dependency:copy "-Dartifact=org.apache.beam:beam-runners-flink-${flink%.*}-job-server:$beam" \
        "-DoutputDirectory=$PWD/$partial/jars" >$partial/log 2>&1; then
        mv $partial/jars/*.jar $partial/job-server.jar
    else
        "${mvn[@]}" dependency:copy-dependencies "-DoutputDirectory=$PWD/$partial/jars" -DincludeScope=runtime >$partial/log 2>&1 || {
            tail -n 5 $partial/log >&2
            fail "Beam's runner for Flink could not be fetched from Maven (its message is above). Give Maven a repository that it reaches (~/.m2/settings.xml), or set FLINK_JOB_SERVER_JAR to Beam's job server on this machine"
        }
        python3 setup/merge_jars.py $partial/jars $partial/job-server.jar org.apache.beam.runners.flink.FlinkJobServerDriver
    fi
    mv $partial/job-server.jar $target/job-server.jar
    echo "$flink $beam with logging" > $target/job-server.version
    rm -rf $partial
    trap - EXIT
    echo "setup: $(du -sh $target/job-server.jar | cut -f1) in $target/job-server.jar"
fi
