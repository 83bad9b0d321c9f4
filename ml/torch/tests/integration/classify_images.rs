//! `ClassifyImages` in a pipeline.

use std::sync::Arc;

use purlin::io::WriteText;
use purlin::prelude::*;
use purlin_inference::BatchSizes;
use purlin_torch::images::{ClassifiedImage, ClassifyImages, ImageClassifierHandler, RejectedImage};
use purlin_torch::models::LoadOptions;

/// The lines that a collection gives, sorted.
fn lines(
    write: impl FnOnce(&Pipeline, &dyn Fn(&PCollection<String>, &str)),
) -> Result<Vec<Vec<String>>, RunError> {
    let folder = tempfile::tempdir().unwrap();
    let names = std::cell::RefCell::new(Vec::new());
    let pipeline = Pipeline::new();
    write(&pipeline, &|collection, name| {
        let path = folder.path().join(name).display().to_string();
        collection.apply_named(name, WriteText::to(&path).without_sharding());
        names.borrow_mut().push(path);
    });
    pipeline.run(&PipelineOptions::default())?;
    Ok(names
        .into_inner()
        .iter()
        .map(|path| {
            let mut lines: Vec<String> = std::fs::read_to_string(path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        })
        .collect())
}

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
fn images_go_to_their_classes_or_to_the_rejected() {
    let folder = tempfile::tempdir().unwrap();
    for (name, color) in [("r", [250, 10, 10]), ("g", [20, 200, 30]), ("b", [0, 30, 90])] {
        image::RgbImage::from_pixel(20, 10, image::Rgb(color))
            .save(folder.path().join(format!("{name}.png")))
            .unwrap();
    }
    std::fs::write(folder.path().join("broken.jpg"), b"\xff\xd8\xff and no more").unwrap();
    std::fs::create_dir(folder.path().join("folder.png")).unwrap();
    let run = |fail: bool| {
        lines(|pipeline, write| {
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
            write(&classified.map("Show", show), "classified");
            write(
                &rejected.map("ShowRejected", |image: RejectedImage| {
                    format!("{}: {}", image.path, image.reason)
                }),
                "rejected",
            );
        })
    };
    let [classified, rejected] = run(false).unwrap().try_into().unwrap();
    assert_eq!(classified, ["b.png blue", "g.png green", "r.png red"]);
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(
        rejected[0].starts_with("absent.png: cannot read ") && rejected[0].contains("No such file"),
        "{rejected:?}"
    );
    assert!(
        rejected[1].starts_with("broken.jpg: damaged JPEG image: "),
        "{rejected:?}"
    );
    assert!(
        rejected[2].starts_with("folder.png: ") && rejected[2].ends_with("is not a regular file"),
        "{rejected:?}"
    );
    let error = run(true).unwrap_err().to_string();
    assert!(
        error.contains("image absent.png: ")
            || error.contains("image broken.jpg: ")
            || error.contains("image folder.png: "),
        "{error}"
    );
}
