//! Pipelines on the cluster that librdkafka plays in this process. What a real broker does is in `tests/test_kafka.py`.

use std::collections::BTreeMap;
use std::time::Duration;

use purlin::prelude::*;
use purlin_kafka::{KafkaMessage, KafkaRecord, ReadKafka, Start, TimestampKind, WriteKafka};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(topics: &[(&str, i32)]) -> (Cluster, String) {
    let cluster = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).unwrap();
    }
    let brokers = cluster.bootstrap_servers();
    (cluster, brokers)
}

fn run(p: &TestPipeline) {
    p.run();
}

/// Writes messages, those of a partition in order.
fn write(brokers: &str, topic: &str, messages: Vec<KafkaMessage>) {
    let p = TestPipeline::new();
    p.apply(Create::new(messages))
        .apply(WriteKafka::new(brokers).topic(topic));
    run(&p);
}

fn numbered(partition: i32, numbers: std::ops::Range<i64>) -> Vec<KafkaMessage> {
    let message = |n: i64| {
        KafkaMessage::new(n.to_string())
            .to_partition(partition)
            .at(Timestamp::from_millis(1_000_000 + n * 1000))
    };
    numbers.map(message).collect()
}

fn number(record: &KafkaRecord) -> i64 {
    std::str::from_utf8(record.value.as_deref().unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

/// The numbers that are read, in no order.
fn read(read: ReadKafka, expected: impl IntoIterator<Item = i64>) {
    let p = TestPipeline::new();
    let numbers = p.apply(read).map("Number", |record: KafkaRecord| number(&record));
    PAssert::that(&numbers).contains_in_any_order(expected);
    run(&p);
}

fn error_of(p: Pipeline) -> String {
    p.run(&PipelineOptions::default()).unwrap_err().to_string()
}

#[test]
fn records_are_read_as_they_were_written() {
    let (_cluster, brokers) = cluster(&[("wines", 2)]);
    let at = Timestamp::from_millis(1_700_000_000_123);
    let whole = KafkaMessage::new("red")
        .with_key("k")
        .to_partition(1)
        .at(at)
        .with_header("grape", "merlot")
        .with_header("grape", "malbec");
    let deleted = KafkaMessage::delete("k").to_partition(1).at(at);
    write(&brokers, "wines", vec![whole.clone(), deleted.clone()]);
    let p = TestPipeline::new();
    let records = p.apply(ReadKafka::new(&brokers).topic("wines").to_end());
    let record = |message: &KafkaMessage| (message.key.clone(), message.value.clone());
    let expected: BTreeMap<i64, _> = [(0, record(&whole)), (1, record(&deleted))].into();
    PAssert::that(&records).satisfies(move |records: &[KafkaRecord]| {
        assert_eq!(records.len(), 2);
        for read in records {
            assert_eq!((read.topic.as_str(), read.partition), ("wines", 1));
            assert_eq!(
                (read.timestamp, read.timestamp_kind),
                (at, TimestampKind::CreateTime)
            );
            assert_eq!((read.key.clone(), read.value.clone()), expected[&read.offset]);
        }
        let first = records.iter().find(|read| read.offset == 0).unwrap();
        assert_eq!(first.header("grape"), Some(&b"malbec"[..]));
        assert_eq!(first.headers.len(), 2);
    });
    run(&p);
}

#[test]
fn many_records_of_many_partitions_come_once_each_and_in_order() {
    let (_cluster, brokers) = cluster(&[("numbers", 4)]);
    let messages = (0..4)
        .flat_map(|partition| numbered(partition, 0..5000))
        .collect();
    write(&brokers, "numbers", messages);
    let p = Pipeline::new();
    let records = p.apply(ReadKafka::new(&brokers).topic("numbers").to_end());
    records
        .map("Place", |record: KafkaRecord| {
            (
                (record.topic.clone(), record.partition),
                (record.offset, number(&record)),
            )
        })
        .apply(GroupByKey)
        .map("Check", |(_, places)| {
            let mut places: Vec<(i64, i64)> = places.into_iter().collect();
            assert_eq!(places.len(), 5000);
            places.sort_unstable();
            assert!(
                places
                    .iter()
                    .enumerate()
                    .all(|(n, place)| *place == (n as i64, n as i64))
            );
        });
    let result = p.run(&PipelineOptions::default()).unwrap();
    assert_eq!(result.metrics().counter("kafka", "records_read"), 20_000);
    let digits: i64 = (0..5000i64).map(|n| n.to_string().len() as i64).sum();
    assert_eq!(result.metrics().counter("kafka", "bytes_read"), 4 * digits);
}

#[test]
fn the_reading_begins_where_it_is_told() {
    let (_cluster, brokers) = cluster(&[("numbers", 2)]);
    write(
        &brokers,
        "numbers",
        [numbered(0, 0..10), numbered(1, 10..20)].concat(),
    );
    let from = |start| ReadKafka::new(&brokers).topic("numbers").to_end().start_at(start);
    read(from(Start::Earliest), 0..20);
    read(from(Start::Latest), []);
    read(
        from(Start::Offsets(vec![("numbers".into(), 1, 7)])),
        (0..10).chain(17..20),
    );
    read(ReadKafka::new(&brokers).partition("numbers", 1).to_end(), 10..20);
    read(ReadKafka::new(&brokers).topic_pattern("num.*").to_end(), 0..20);
}

#[test]
fn a_group_goes_on_where_the_last_job_was() {
    let (_cluster, brokers) = cluster(&[("numbers", 1)]);
    write(&brokers, "numbers", numbered(0, 0..10));
    let of_group = || {
        ReadKafka::new(&brokers)
            .topic("numbers")
            .group("billing")
            .to_end()
    };
    read(of_group(), 0..10);
    write(&brokers, "numbers", numbered(0, 10..15));
    read(of_group(), 10..15);
    read(of_group().start_at(Start::Earliest), 0..15);
    let new = ReadKafka::new(&brokers).topic("numbers").group("other").to_end();
    read(
        new.start_at(Start::Group {
            otherwise_latest: true,
        }),
        [],
    );
}

#[test]
fn a_job_without_an_end_reads_on_until_it_is_drained_and_windows_close_by_its_watermark() {
    let (_cluster, brokers) = cluster(&[("numbers", 2)]);
    write(
        &brokers,
        "numbers",
        [numbered(0, 0..10), numbered(1, 0..10)].concat(),
    );
    let p = Pipeline::new();
    let source = ReadKafka::new(&brokers)
        .topic("numbers")
        .event_time(|record| Ok(record.timestamp))
        .max_delay(Duration::from_millis(500));
    let (sender, windows) = std::sync::mpsc::channel();
    let sender = std::sync::Arc::new(std::sync::Mutex::new(sender));
    p.apply(source)
        .map("Number", |record: KafkaRecord| number(&record))
        .window_into("Windows", Windowing::fixed(Duration::from_secs(5)))
        .map("Key", |n| ((), n))
        .combine_per_key("Sum", Sum::new())
        .values()
        .map("Tell", move |sum: i64| sender.lock().unwrap().send(sum).unwrap());
    let handle = p.start(&PipelineOptions::default()).unwrap();
    // 1000 s is the start of a window. The last records are at 1009 s, so the window from 1005 s waits.
    assert_eq!(
        windows.recv_timeout(Duration::from_secs(60)).unwrap(),
        2 * (1 + 2 + 3 + 4)
    );
    assert!(windows.recv_timeout(Duration::from_millis(300)).is_err());
    // A record that is later than others by less than max_delay counts; then both partitions are behind the window.
    let late = numbered(0, 12..13)
        .into_iter()
        .chain(numbered(1, 12..13))
        .collect();
    write(&brokers, "numbers", late);
    assert_eq!(
        windows.recv_timeout(Duration::from_secs(60)).unwrap(),
        2 * (5 + 6 + 7 + 8 + 9)
    );
    handle.drain().unwrap();
    handle.wait().unwrap();
}

#[test]
fn partitions_that_are_made_later_are_found() {
    let (cluster, brokers) = cluster(&[("wine-red", 1)]);
    write(&brokers, "wine-red", numbered(0, 0..3));
    let p = Pipeline::new();
    let source = ReadKafka::new(&brokers)
        .topic_pattern("wine-.*")
        .start_at(Start::Latest)
        .discover_every(Duration::from_millis(100));
    let (sender, numbers) = std::sync::mpsc::channel();
    let sender = std::sync::Arc::new(std::sync::Mutex::new(sender));
    p.apply(source).map("Tell", move |record: KafkaRecord| {
        sender.lock().unwrap().send(number(&record)).unwrap()
    });
    let handle = p.start(&PipelineOptions::default()).unwrap();
    assert!(
        numbers.recv_timeout(Duration::from_secs(2)).is_err(),
        "what was there before is not read"
    );
    cluster.create_topic("wine-white", 1, 1).unwrap();
    write(&brokers, "wine-white", numbered(0, 5..7));
    // Though it begins at the latest record: this topic is new.
    assert_eq!(numbers.recv_timeout(Duration::from_secs(60)).unwrap(), 5);
    assert_eq!(numbers.recv_timeout(Duration::from_secs(60)).unwrap(), 6);
    handle.cancel();
    handle.wait().unwrap_err();
}

#[test]
fn errors_name_broker_and_topic() {
    let (_cluster, brokers) = cluster(&[("orders", 1)]);
    let fails = |read: ReadKafka| {
        let p = Pipeline::new();
        p.apply(read);
        error_of(p)
    };
    let there = || ReadKafka::new(&brokers).to_end();
    let error = fails(there().topic("order"));
    assert!(
        error.contains(&format!(
            "there is no topic \"order\" at {brokers}; there is \"orders\""
        )),
        "{error}"
    );
    let error = fails(there().partition("orders", 3));
    assert!(
        error.contains(&format!(
            "topic \"orders\" at {brokers} has no partition 3; it has 1"
        )),
        "{error}"
    );
    let error = fails(there().topic_pattern("x.*"));
    assert!(
        error.contains(&format!("no topic at {brokers} matches the pattern \"x.*\"")),
        "{error}"
    );
    let gone = there()
        .topic("orders")
        .start_at(Start::Offsets(vec![("orders".into(), 0, 7)]));
    let error = fails(gone);
    assert!(
        error.contains(&format!(
            "offset 7 of orders-0 at {brokers} is not there: it keeps those from 0 to before 0"
        )),
        "{error}"
    );
    let nobody = ReadKafka::new("127.0.0.1:1")
        .topic("orders")
        .timeout(Duration::from_secs(2));
    let error = fails(nobody.to_end());
    assert!(
        error.contains("Kafka at 127.0.0.1:1 does not answer: asking for its topics, for 2 s"),
        "{error}"
    );

    write(&brokers, "orders", vec![KafkaMessage::new("seven")]);
    let error = fails(there().topic("orders").event_time(|_| Err("no date".into())));
    assert!(
        error.contains(&format!(
            "orders-0 at {brokers}, offset 0: its event time cannot be told: no date"
        )),
        "{error}"
    );
}

#[test]
fn what_cannot_be_is_told_before_it_runs() {
    let p = Pipeline::new();
    p.apply(
        ReadKafka::new(" ")
            .property("group.id", "x")
            .property("no.such", "1")
            .discover_every(Duration::ZERO)
            .to_end(),
    );
    p.apply_named("Pattern", ReadKafka::new("localhost:1").topic_pattern("("));
    p.apply_named(
        "Group",
        ReadKafka::new("localhost:1").topic("x").start_at(Start::Group {
            otherwise_latest: false,
        }),
    );
    p.apply(Create::new([KafkaMessage::new("x")])).apply(
        WriteKafka::new("localhost:1")
            .property("transactional.id", "x")
            .property("sasl.password", "secret")
            .property("acks", "several"),
    );
    let error = error_of(p);
    for part in [
        "\"group.id\" = \"x\": the transform sets it itself; use ReadKafka::group",
        "property \"no.such\" = \"1\": No such configuration property",
        "no address of a broker is given",
        "it reads no topic",
        "to_end and discover_every exclude each other",
        "discover_every is zero",
        "transform \"Pattern\": topic_pattern: regex parse error",
        "it starts where the group is, but there is none",
        "\"transactional.id\" = \"x\": the transform sets it itself",
        "property \"acks\" = \"several\"",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("secret"));
}

#[test]
fn what_is_not_written_is_told() {
    let (_cluster, brokers) = cluster(&[("small", 1)]);
    let fails = |message: KafkaMessage, write: WriteKafka| {
        let p = Pipeline::new();
        p.apply(Create::new([message])).apply(write);
        error_of(p)
    };
    let large = KafkaMessage::new(vec![b'x'; 4000]);
    let error = fails(
        large,
        WriteKafka::new(&brokers)
            .topic("small")
            .property("message.max.bytes", "1000"),
    );
    assert!(
        error.contains(&format!(
            "a record of 4000 bytes is too large for topic \"small\" at {brokers}"
        )),
        "{error}"
    );
    let error = fails(KafkaMessage::new("x"), WriteKafka::new(&brokers));
    assert!(error.contains("a record names no topic"), "{error}");
    let nowhere = WriteKafka::new("127.0.0.1:1")
        .topic("small")
        .timeout(Duration::from_secs(2));
    let error = fails(KafkaMessage::new("x"), nowhere);
    assert!(
        error.contains("Kafka at 127.0.0.1:1 does not answer: writing to topic \"small\""),
        "{error}"
    );
    let error = fails(
        KafkaMessage::new("x").to_partition(5),
        WriteKafka::new(&brokers).topic("small"),
    );
    assert!(error.contains(&format!("small-5 at {brokers}")), "{error}");
}
