//! Numbers that lists are made of.

/// A number of a list.
pub trait Number: Sized {
    /// What to expect in an error.
    const EXPECTED: &'static str;

    /// The nearest to what a text says; none if it is no such number.
    fn of_text(text: &str) -> Option<Self>;

    /// A number of a file that holds whole numbers as such.
    fn of_whole(number: i64) -> Option<Self>;

    /// A number of a file that holds others in 32 or 64 bits.
    fn of_float(number: f64) -> Option<Self>;
}

impl Number for f32 {
    const EXPECTED: &'static str = "a number";

    fn of_text(text: &str) -> Option<f32> {
        text.parse().ok()
    }

    fn of_whole(number: i64) -> Option<f32> {
        Some(number as f32)
    }

    fn of_float(number: f64) -> Option<f32> {
        // Of 32 bits it is the same again.
        Some(number as f32)
    }
}

impl Number for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn of_text(text: &str) -> Option<i64> {
        match text {
            // XGBoost has written flags as such.
            "true" => Some(1),
            "false" => Some(0),
            _ => text.parse().ok(),
        }
    }

    fn of_whole(number: i64) -> Option<i64> {
        Some(number)
    }

    fn of_float(number: f64) -> Option<i64> {
        // Larger ones are not whole for sure.
        let whole = number.trunc() == number && number.abs() < 9e15;
        whole.then_some(number as i64)
    }
}
