use std::collections::BTreeMap;

use datafusion::logical_expr::EmitTo;

/// The registers of a sketch.
const REGISTERS: f64 = 4_096.0;

/// The registers of each group that are not zero, by their number: `register << 8 | rank`, in order.
#[derive(Default)]
pub(super) struct Groups {
    registers: Vec<Vec<u32>>,
    pub(super) bytes: usize,
}

impl Groups {
    pub(super) fn raise(&mut self, group: usize, register: u32, rank: u32) {
        let own = &mut self.registers[group];
        match own.binary_search_by_key(&register, |entry| entry >> 8) {
            Ok(at) => own[at] = (register << 8) | rank.max(own[at] & 0xff),
            Err(at) => {
                let before = own.capacity();
                if before == own.len() {
                    // Most groups have few values.
                    own.reserve_exact((before / 2).max(1));
                }
                own.insert(at, (register << 8) | rank);
                self.bytes += (own.capacity() - before) * size_of::<u32>();
            }
        }
    }

    pub(super) fn grow(&mut self, groups: usize) {
        if groups > self.registers.len() {
            self.bytes += (groups - self.registers.len()) * size_of::<Vec<u32>>();
            self.registers.resize_with(groups, Vec::new);
        }
    }

    pub(super) fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<u32>> {
        let taken = emit_to.take_needed(&mut self.registers);
        let bytes = |own: &Vec<u32>| size_of::<Vec<u32>>() + own.capacity() * size_of::<u32>();
        self.bytes = self.bytes.saturating_sub(taken.iter().map(bytes).sum());
        taken
    }
}

/// The harmonic mean of the registers, or a count of the empty ones when they are many (Flajolet et al. 2007).
pub(super) fn estimate(registers: &[u32]) -> u64 {
    let empty = REGISTERS - registers.len() as f64;
    let mut ranks = BTreeMap::new();
    registers.iter().for_each(|entry| *ranks.entry(entry & 0xff).or_insert(0.0) += 1.0);
    let sum = empty + ranks.into_iter().map(|(rank, count): (u32, f64)| count / 2_f64.powi(rank as i32)).sum::<f64>();
    let bias = 0.7213 / (1.0 + 1.079 / REGISTERS);
    let raw = bias * REGISTERS * REGISTERS / sum;
    let few = raw <= 2.5 * REGISTERS && empty > 0.0;
    (if few { REGISTERS * (REGISTERS / empty).ln() } else { raw }).round() as u64
}
