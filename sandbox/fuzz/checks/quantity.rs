//! What every text must hold that is read as a quantity; the fuzzer and the crate's tests both call it.

/// Reading ends, in a number or in none, and the canonical form means the same and stays as it is.
pub(crate) fn quantity(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let canonical = ::quantity::canonical(text);
    let Some(value) = ::quantity::value(text) else { return };
    let canonical = canonical.expect("it has a value");
    assert_eq!(::quantity::canonical(&canonical).as_ref(), Ok(&canonical), "{text:?}");
    let is_capped = text.trim().ends_with('i') && value.abs() >= i64::MAX as f64;
    if is_capped {
        return;
    }
    let again = ::quantity::value(&canonical).expect("the canonical form is a quantity");
    // It is rounded up to a billionth.
    assert!(
        (again - value).abs() <= value.abs() * 1e-9 + 1e-9,
        "{text:?} is {value}, {canonical} is {again}"
    );
    // Rounded up, away from zero.
    if let Some(whole) = ::quantity::whole(text) {
        assert!(whole as f64 >= value - value.abs() * 1e-9, "{text:?} is {value}, not {whole}");
    }
    if let Some(milli) = ::quantity::milli(text) {
        let is_next = (milli as f64 - value * 1000.0).abs() <= 1.0 + value.abs() * 1e-6;
        assert!(is_next, "{text:?} is {value}, not {milli} thousandths");
    }
}
