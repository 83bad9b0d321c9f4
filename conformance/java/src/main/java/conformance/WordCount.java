package conformance;

import java.util.Arrays;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.metrics.Counter;
import org.apache.beam.sdk.metrics.MetricNameFilter;
import org.apache.beam.sdk.metrics.MetricQueryResults;
import org.apache.beam.sdk.metrics.MetricsFilter;
import org.apache.beam.sdk.metrics.Metrics;
import org.apache.beam.sdk.PipelineResult;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.transforms.Count;
import org.apache.beam.sdk.transforms.Create;
import org.apache.beam.sdk.transforms.DoFn;
import org.apache.beam.sdk.transforms.FlatMapElements;
import org.apache.beam.sdk.transforms.ParDo;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.TypeDescriptors;

/** Counts words, and tells of how many of them the count was right. */
public class WordCount {
  static class Check extends DoFn<KV<String, Long>, Void> {
    private final Counter right = Metrics.counter("wordcount", "right");
    private final Counter wrong = Metrics.counter("wordcount", "wrong");

    @ProcessElement
    public void process(@Element KV<String, Long> count) {
      long expected = count.getKey().equals("to") || count.getKey().equals("be") ? 2 : 1;
      (count.getValue() == expected ? right : wrong).inc();
    }
  }

  static long counter(PipelineResult result, String name) {
    MetricQueryResults found =
        result
            .metrics()
            .queryMetrics(
                MetricsFilter.builder()
                    .addNameFilter(MetricNameFilter.named("wordcount", name))
                    .build());
    // The SDK lists attempted and committed values as counters of their own.
    long most = 0;
    for (var counter : found.getCounters()) {
      most = Math.max(most, counter.getAttempted());
    }
    return most;
  }

  public static void main(String[] args) {
    Pipeline p = Pipeline.create(PipelineOptionsFactory.fromArgs(args).create());
    p.apply(Create.of("to be or not", "to be"))
        .apply(FlatMapElements.into(TypeDescriptors.strings()).via((String line) -> Arrays.asList(line.split(" "))))
        .apply(Count.perElement())
        .apply(ParDo.of(new Check()));
    PipelineResult result = p.run();
    PipelineResult.State state = result.waitUntilFinish();
    System.out.printf("%s right=%d wrong=%d%n", state, counter(result, "right"), counter(result, "wrong"));
    System.exit(state == PipelineResult.State.DONE ? 0 : 1);
  }
}
