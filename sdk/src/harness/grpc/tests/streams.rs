//! What other runners expect of messages without content, and of the ends of streams.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_without_outputs_answers_without_elements() {
    let p = Pipeline::new();
    p.apply(Create::new([0i64]))
        .reshuffle("Before")
        .map("Drop", |_: i64| ());
    let capabilities = [urns::runner_protocols::CONTROL_RESPONSE_ELEMENTS_EMBEDDING];
    let mut runner = Runner::start(&p, "Drop", &capabilities, vec![]).await;
    runner.bundle("b1");
    runner.send("b1", encoded(&[1i64]), true);
    // Beam's Java runners take elements that are there, if empty, for output, and have nobody to give it to.
    assert_eq!(done(runner.answer().await).elements, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_ends_each_stream_that_the_runner_ends() {
    let mut runner = Runner::start(&negate(), "Negate", &[], vec![]).await;
    // Opens the data stream.
    runner.bundle("b1");
    runner.send("b1", encoded(&[1i64]), true);
    runner.output("b1").await;
    runner.answer().await;

    runner.services.0.log_controls.lock().take();
    assert_eq!(runner.ended.recv().await, Some("logging"));
    runner.data = mpsc::unbounded_channel().0;
    assert_eq!(runner.ended.recv().await, Some("data"));
    runner.control = None;
    assert_eq!(runner.ended.recv().await, Some("control"));
    runner.harness.await.unwrap().unwrap();
}
