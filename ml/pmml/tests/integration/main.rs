//! Models of all kinds (`make_golden.py`), with what the JPMML evaluator gives; documents that are broken; the logic of
//! predicates; and pipelines. One program, as each is linked for itself.

mod broken;
mod golden;
mod inference;
mod logic;
