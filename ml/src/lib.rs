//! Inference transforms and model handlers for Purlin pipelines.
//!
//! - [`inference`]: `RunInference` with a [`ModelHandler`](inference::ModelHandler), for any kind of model;
//! - [`images`]: from image paths to classes, as one transform;
//! - [`models`]: networks by torchvision's names, and any TorchScript file;
//! - [`weights`]: safetensors, `torch.save(model.state_dict(), path)` and TorchScript files;
//! - [`preprocess`]: image files to tensors, with torchvision's and PIL's numbers;
//! - [`classify`]: batches of images to labels and scores;
//! - [`tuning`]: allocator, threads, device and precision.

#![deny(unsafe_code)]

pub mod classify;
mod frozen;
pub mod images;
pub mod inference;
pub mod models;
pub mod preprocess;
pub mod tuning;
pub mod weights;
