package conformance;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.PipelineResult;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.coders.KvCoder;
import org.apache.beam.sdk.coders.StringUtf8Coder;
import org.apache.beam.sdk.coders.VarIntCoder;
import org.apache.beam.sdk.coders.VarLongCoder;
import org.apache.beam.sdk.coders.VoidCoder;
import org.apache.beam.sdk.io.GenerateSequence;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.state.TimeDomain;
import org.apache.beam.sdk.state.Timer;
import org.apache.beam.sdk.state.TimerSpec;
import org.apache.beam.sdk.state.TimerSpecs;
import org.apache.beam.sdk.testing.TestStream;
import org.apache.beam.sdk.transforms.Combine;
import org.apache.beam.sdk.transforms.Create;
import org.apache.beam.sdk.transforms.DoFn;
import org.apache.beam.sdk.transforms.Filter;
import org.apache.beam.sdk.transforms.GroupByKey;
import org.apache.beam.sdk.transforms.GroupIntoBatches;
import org.apache.beam.sdk.transforms.Max;
import org.apache.beam.sdk.transforms.ParDo;
import org.apache.beam.sdk.transforms.Reshuffle;
import org.apache.beam.sdk.transforms.Sum;
import org.apache.beam.sdk.transforms.View;
import org.apache.beam.sdk.transforms.Wait;
import org.apache.beam.sdk.transforms.WithKeys;
import org.apache.beam.sdk.transforms.windowing.AfterPane;
import org.apache.beam.sdk.transforms.windowing.FixedWindows;
import org.apache.beam.sdk.transforms.windowing.GlobalWindows;
import org.apache.beam.sdk.transforms.windowing.Repeatedly;
import org.apache.beam.sdk.transforms.windowing.Window;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.PCollection;
import org.apache.beam.sdk.values.PCollectionView;
import org.apache.beam.sdk.values.TimestampedValue;
import org.apache.beam.sdk.values.TypeDescriptors;
import org.joda.time.Duration;
import org.joda.time.Instant;

/**
 * Small pipelines of what Java's SDK does in its own way. The first argument names one, the others are its options; it prints the
 * job's state and what its user code saw. Environment LOOPBACK: user code runs in this process, which is how it tells.
 */
public class Points {
  /** What user code saw, in order. */
  static final List<String> SEEN = new CopyOnWriteArrayList<>();

  static class See<T> extends DoFn<T, T> {
    @ProcessElement
    public void process(@Element T element, OutputReceiver<T> out) {
      SEEN.add(String.valueOf(element));
      out.output(element);
    }
  }

  /** A few elements that take long, among many that do not. */
  static void stragglers(Pipeline p) {
    p.apply(Create.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
        .apply(Reshuffle.viaRandomKey())
        .apply(ParDo.of(new Slow()));
  }

  static class Slow extends DoFn<Integer, Integer> {
    @ProcessElement
    public void process(@Element Integer n) throws InterruptedException {
      Thread.sleep(n < 5 ? 2000 : 1);
      SEEN.add(n.toString());
    }
  }

  /** An unbounded source of 20 splits, of which each has every twentieth number. */
  static void splits(Pipeline p) {
    p.apply(GenerateSequence.from(0).withRate(50, Duration.standardSeconds(1))).apply(ParDo.of(new Split()));
  }

  static class Split extends DoFn<Long, Void> {
    @ProcessElement
    public void process(@Element Long n) {
      String split = Long.toString(n % 20);
      synchronized (SEEN) {
        if (!SEEN.contains(split)) {
          SEEN.add(split);
        }
      }
    }
  }

  /** Numbers below 100 are a side input, which fires at each; the others look it up. */
  static PCollection<Long> numbers(Pipeline p) {
    return p.apply(
        TestStream.create(VarLongCoder.of())
            .addElements(5L)
            .addElements(100L)
            .addElements(1L)
            .addElements(200L)
            .advanceWatermarkToInfinity());
  }

  static PCollection<Long> fired(PCollection<Long> numbers, boolean accumulating) {
    Window<Long> window =
        Window.<Long>into(new GlobalWindows())
            .triggering(Repeatedly.forever(AfterPane.elementCountAtLeast(1)))
            .withAllowedLateness(Duration.ZERO);
    return numbers
        .apply("Side", Filter.lessThan(100L))
        .apply(accumulating ? window.accumulatingFiredPanes() : window.discardingFiredPanes());
  }

  static void sideSingleton(Pipeline p, boolean accumulating) {
    PCollection<Long> numbers = numbers(p);
    PCollectionView<Long> side =
        fired(numbers, accumulating).apply(Combine.globally(Max.ofLongs()).asSingletonView());
    numbers
        .apply("Main", Filter.greaterThanEq(100L))
        .apply(
            ParDo.of(
                    new DoFn<Long, Void>() {
                      @ProcessElement
                      public void process(ProcessContext c) {
                        SEEN.add(c.element() + ":" + c.sideInput(side));
                      }
                    })
                .withSideInputs(side));
  }

  static void sideMap(Pipeline p) {
    PCollection<Long> numbers = numbers(p);
    PCollectionView<Map<String, Long>> side =
        fired(numbers, true)
            .apply(WithKeys.<String, Long>of("k").withKeyType(TypeDescriptors.strings()))
            .apply(Sum.longsPerKey())
            .apply(View.asMap());
    numbers
        .apply("Main", Filter.greaterThanEq(100L))
        .apply(
            ParDo.of(
                    new DoFn<Long, Void>() {
                      @ProcessElement
                      public void process(ProcessContext c) {
                        SEEN.add(c.element() + ":" + c.sideInput(side).get("k"));
                      }
                    })
                .withSideInputs(side));
  }

  /**
   * A timer that holds the watermark is set anew with a later hold, as an element is emitted: the next transform's timer is due
   * then, and has that element before it.
   */
  static void heldTimer(Pipeline p) {
    p.apply(
            TestStream.create(KvCoder.of(StringUtf8Coder.of(), VarLongCoder.of()))
                .advanceWatermarkTo(new Instant(0))
                .addElements(TimestampedValue.of(KV.of("key", 1L), new Instant(0)))
                .advanceWatermarkTo(new Instant(9))
                .addElements(TimestampedValue.of(KV.of("key", 2L), new Instant(9)))
                .advanceWatermarkToInfinity())
        .apply(ParDo.of(new Holds()))
        .apply(ParDo.of(new Waits()));
  }

  static class Holds extends DoFn<KV<String, Long>, KV<String, String>> {
    @TimerId("timer")
    private final TimerSpec spec = TimerSpecs.timer(TimeDomain.EVENT_TIME);

    @ProcessElement
    public void process(
        @Element KV<String, Long> pair,
        @Timestamp Instant now,
        @TimerId("timer") Timer timer,
        OutputReceiver<KV<String, String>> out) {
      timer.withOutputTimestamp(now.plus(Duration.millis(5))).set(now.plus(Duration.millis(10)));
      out.output(KV.of("key", "element" + pair.getValue()));
    }

    @OnTimer("timer")
    public void onTimer(OutputReceiver<KV<String, String>> out) {
      out.output(KV.of("key", "last"));
    }
  }

  static class Waits extends DoFn<KV<String, String>, Void> {
    @TimerId("timer")
    private final TimerSpec spec = TimerSpecs.timer(TimeDomain.EVENT_TIME);

    @ProcessElement
    public void process(@Element KV<String, String> pair, @TimerId("timer") Timer timer) {
      SEEN.add(pair.getValue());
      if (pair.getValue().equals("element1")) {
        timer.set(new Instant(8));
      }
    }

    @OnTimer("timer")
    public void onTimer() {
      SEEN.add("timer");
    }
  }

  /** A signal that is late, but allowed to be. */
  static void lateSignal(Pipeline p) {
    PCollection<String> all =
        p.apply(
                TestStream.create(StringUtf8Coder.of())
                    .advanceWatermarkTo(new Instant(0))
                    .addElements(TimestampedValue.of("main", new Instant(1000)))
                    .advanceWatermarkTo(new Instant(15_000))
                    .addElements(TimestampedValue.of("signal", new Instant(2000)))
                    .advanceWatermarkToInfinity())
            .apply(
                Window.<String>into(FixedWindows.of(Duration.standardSeconds(10)))
                    .withAllowedLateness(Duration.standardSeconds(20))
                    .discardingFiredPanes());
    PCollection<String> signal = all.apply("Signal", Filter.equal("signal")).apply("SeeSignal", ParDo.of(new See<>()));
    all.apply("Main", Filter.equal("main")).apply(Wait.on(signal)).apply("SeeMain", ParDo.of(new See<>()));
  }

  /** Timers of processing time, set before and after that was advanced. */
  static void buffered(Pipeline p) {
    TestStream.Builder<KV<String, Long>> events = TestStream.create(KvCoder.of(StringUtf8Coder.of(), VarLongCoder.of()));
    for (long n = 0; n < 6; n++) {
      events = events.addElements(KV.of("key", n));
      if (n % 3 == 2) {
        events = events.advanceProcessingTime(Duration.standardSeconds(100));
      }
    }
    p.apply(events.advanceWatermarkToInfinity())
        .apply(GroupIntoBatches.<String, Long>ofSize(10).withMaxBufferingDuration(Duration.standardSeconds(50)))
        .apply(ParDo.of(new Sizes()));
  }

  static class Sizes extends DoFn<KV<String, Iterable<Long>>, Void> {
    @ProcessElement
    public void process(@Element KV<String, Iterable<Long>> batch) {
      SEEN.add(Long.toString(StreamSupport.stream(batch.getValue().spliterator(), false).count()));
    }
  }

  /** Pairs whose key only Java's SDK can decode. */
  static <K> void keys(Pipeline p, Coder<K> coder, K one, K other) {
    p.apply(
            TestStream.create(KvCoder.of(coder, StringUtf8Coder.of()))
                .addElements(KV.of(one, "a"), KV.of(other, "b"))
                .addElements(KV.of(one, "c"))
                .advanceWatermarkToInfinity())
        .apply(Window.into(FixedWindows.of(Duration.standardSeconds(10))))
        .apply(GroupByKey.create())
        .apply(ParDo.of(new Groups<>()));
  }

  static class Groups<K> extends DoFn<KV<K, Iterable<String>>, Void> {
    @ProcessElement
    public void process(@Element KV<K, Iterable<String>> group) {
      Stream<String> values = StreamSupport.stream(group.getValue().spliterator(), false);
      SEEN.add(group.getKey() + ":" + values.sorted().collect(Collectors.joining()));
    }
  }

  static final Map<String, Consumer<Pipeline>> PIPELINES = new TreeMap<>();

  /** Of pipelines without an end: what user code must have seen when they are cancelled. */
  static final Map<String, BooleanSupplier> UNTIL = Map.of("splits", () -> SEEN.size() == 20);

  static {
    PIPELINES.put("stragglers", Points::stragglers);
    PIPELINES.put("splits", Points::splits);
    PIPELINES.put("side-accumulating", p -> sideSingleton(p, true));
    PIPELINES.put("side-discarding", p -> sideSingleton(p, false));
    PIPELINES.put("side-map", Points::sideMap);
    PIPELINES.put("held-timer", Points::heldTimer);
    PIPELINES.put("late-signal", Points::lateSignal);
    PIPELINES.put("buffered", Points::buffered);
    PIPELINES.put("integer-keys", p -> keys(p, VarIntCoder.of(), 1, 2));
    PIPELINES.put("void-keys", p -> keys(p, VoidCoder.of(), null, null));
  }

  public static void main(String[] args) throws Exception {
    String[] options = Arrays.copyOfRange(args, 1, args.length);
    Pipeline p = Pipeline.create(PipelineOptionsFactory.fromArgs(options).create());
    PIPELINES.get(args[0]).accept(p);
    PipelineResult result = p.run();
    PipelineResult.State state;
    BooleanSupplier until = UNTIL.get(args[0]);
    if (until != null) {
      long end = System.nanoTime() + 60_000_000_000L;
      while (!until.getAsBoolean() && !result.getState().isTerminal() && System.nanoTime() < end) {
        Thread.sleep(20);
      }
      result.cancel();
      state = result.waitUntilFinish();
    } else {
      state = result.waitUntilFinish();
    }
    System.out.printf("%s %s%n", state, String.join(" ", SEEN.stream().map(s -> s.replace(' ', '_')).toList()));
    System.exit(0);
  }
}
