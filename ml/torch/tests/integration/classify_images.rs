//! `ClassifyImages` in a pipeline.

use std::sync::Arc;

use purlin::prelude::*;
use purlin_inference::{BatchSizes, ModelHandler as _};
use purlin_torch::images::{ClassifiedImage, ClassifyImages, ImageClassifierHandler, RejectedImage};
use purlin_torch::models::LoadOptions;

fn classifier(batch: usize) -> ImageClassifierHandler {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    ImageClassifierHandler {
        weights: tests.join("weights/scripted.pt"),
        options: LoadOptions::named("torchscript").unwrap(),
        labels: Some(Arc::new(["red", "green", "blue"].map(str::to_owned).to_vec())),
        top_k: 2,
        batch_sizes: BatchSizes { min: 1, max: batch },
    }
}

#[test]
fn a_classifier_names_the_content_of_its_weights() {
    let handler = classifier(1);
    let model = handler.load().unwrap();
    let hash = purlin_inference::hash_bytes(&std::fs::read(&handler.weights).unwrap());
    assert_eq!(handler.model_hash(&model), Some(hash));
}

#[test]
fn images_go_to_their_classes_or_to_the_rejected() {
    let folder = tempfile::tempdir().unwrap();
    for (name, color) in [("r", [250, 10, 10]), ("g", [20, 200, 30]), ("b", [0, 30, 90])] {
        image::RgbImage::from_pixel(20, 10, image::Rgb(color))
            .save(folder.path().join(format!("{name}.png")))
            .unwrap();
    }
    std::fs::write(folder.path().join("broken.jpg"), b"\xff\xd8\xff and no more").unwrap();
    std::fs::create_dir(folder.path().join("folder.png")).unwrap();
    let classify = |pipeline: &Pipeline, fail: bool| {
        let names = [
            "r.png",
            "absent.png",
            "g.png",
            "broken.jpg",
            "b.png",
            "folder.png",
        ]
        .map(str::to_owned);
        let classify = ClassifyImages::new(classifier(2))
            .images_dir(folder.path())
            .fail_on_error(fail);
        let (classified, rejected) = pipeline.apply(Create::new(names)).apply(classify);
        let show = |image: ClassifiedImage| {
            assert!(image.classes.len() == 2 && image.classes[0].score > image.classes[1].score);
            format!("{} {}", image.path, image.classes[0].label)
        };
        let show_rejected = |image: RejectedImage| format!("{}: {}", image.path, image.reason);
        (
            classified.map("Show", show),
            rejected.map("ShowRejected", show_rejected),
        )
    };
    let pipeline = TestPipeline::new();
    let (classified, rejected) = classify(&pipeline, false);
    PAssert::that(&classified)
        .contains_in_any_order(["b.png blue", "g.png green", "r.png red"].map(str::to_owned));
    PAssert::that(&rejected).satisfies(|rejected: &[String]| {
        let mut rejected = rejected.to_vec();
        rejected.sort();
        let [absent, broken, no_file] = rejected.as_slice() else {
            panic!("{rejected:?}")
        };
        assert!(
            absent.starts_with("absent.png: cannot read ") && absent.contains("No such file"),
            "{absent}"
        );
        assert!(broken.starts_with("broken.jpg: damaged JPEG image: "), "{broken}");
        assert!(
            no_file.starts_with("folder.png: ") && no_file.ends_with("is not a regular file"),
            "{no_file}"
        );
    });
    pipeline.run();
    let pipeline = Pipeline::new();
    classify(&pipeline, true);
    let failed = pipeline.run(&PipelineOptions::default());
    let error = failed.unwrap_err().to_string();
    assert!(
        error.contains("image absent.png: ")
            || error.contains("image broken.jpg: ")
            || error.contains("image folder.png: "),
        "{error}"
    );
}
