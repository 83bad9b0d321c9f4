//! Images, networks and weights, by what PyTorch and Pillow make of them. One program, as each is linked for itself.

mod classify_images;
mod formula;
mod images;
mod models;
mod packages;
#[cfg(feature = "text")]
mod text;
mod weights;
