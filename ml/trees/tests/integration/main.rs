//! Models that LightGBM (`make_models.py`) and XGBoost (`make_xgboost.py`) trained, with what they predict; files that are broken; and
//! pipelines. One program, as each is linked for itself.

mod broken;
mod golden;
mod inference;
mod xgboost;
