//! Models that LightGBM trained (`make_models.py`), with what it predicts; files that are broken; and pipelines. One program, as each
//! is linked for itself.

mod broken;
mod golden;
mod inference;
