//! The 112 permutations of datatrove: `RandomState(1).randint(1, 2^61 - 1, uint64, 112)` of NumPy, then
//! `randint(0, 2^61 - 1, uint64, 112)` from the same stream. The Mersenne Twister and NumPy's rejection of values are
//! not worth a second implementation; `scripts/compare/run.sh signatures` compares the results.

/// Factors.
pub(super) const A: [u64; 112] = column(0);
/// Summands.
pub(super) const B: [u64; 112] = column(1);

/// A column of the table, whose lines are a factor, a space and a summand.
const fn column(which: usize) -> [u64; 112] {
    let text = include_bytes!("permutations.txt");
    let mut values = [[0; 112]; 2];
    let (mut at, mut row, mut column) = (0, 0, 0);
    while at < text.len() {
        match text[at] {
            b' ' => column = 1,
            b'\n' => (row, column) = (row + 1, 0),
            digit => values[column][row] = values[column][row] * 10 + (digit - b'0') as u64,
        }
        at += 1;
    }
    values[which]
}
