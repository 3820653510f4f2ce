import CIntrinsics
import KernelTypes

// Products with a matrix of signs. With the absolute loss, slopes are one number times a sign, so sum over i of s_i v_i takes
// no multiplication: for five vectors v there are only 32 sums +-v0 +-v1 +-v2 +-v3 +-v4. They are tabulated, once for all
// rows of signs, and a row then needs a lookup for five multiply-adds. Twelve tables of 32 vectors are 24 KB, about a
// first-level cache; more signs to a table would take longer to tabulate than they save.

/// Signs in a word: twelve groups of five.
private let groups = 12
private let signsPerGroup = 5
private let entries = 32
private let allSigns: UInt64 = 1 << 60 - 1

/// words[b * stride] = which of the elements 60 b to 60 b + 59 are positive, a bit each; true if one is 0.
func signWords(_ row: ConstantFloats, _ columns: Int, _ words: UnsafeMutablePointer<UInt64>, _ stride: Int) -> Bool {
  var anyZero = false
  var first = 0
  var word = words
  while first < columns {
    var bits: UInt64 = 0
    if first &+ 64 <= columns {  // whole vectors, of which the last four lanes belong to the next word
      var present: UInt64 = 0
      for quarter in 0..<4 {
        let v = load(row, first &+ quarter &* 16)
        let shift = UInt64(truncatingIfNeeded: quarter &* 16)
        bits |= UInt64(usae_positive(v)) &<< shift
        present |= UInt64(usae_not_zero(v)) &<< shift
      }
      bits &= allSigns
      anyZero = anyZero || present & allSigns != allSigns
    } else {
      for c in first..<(first &+ signsPerWord < columns ? first &+ signsPerWord : columns) {
        bits |= (row[c] > 0 ? 1 : 0) << UInt64(truncatingIfNeeded: c &- first)
        anyZero = anyZero || row[c] == 0
      }
    }
    word.pointee = bits
    word += stride
    first &+= signsPerWord
  }
  return anyZero
}

/// words[c] gets bit `bit` set where row[c] is positive.
func addSigns(_ row: ConstantFloats, _ columns: Int, _ bit: Int, _ words: UnsafeMutablePointer<UInt64>) {
  let shift = UInt64(truncatingIfNeeded: bit)
  for c in 0..<columns { words[c] |= (row[c] > 0 ? 1 : 0) &<< shift }
}

/// out[r] += sum over i < count of +-values[i], 16 floats each, + where bit i of row r's words is set.
///
/// Words are [ceil(count / 60), wordStride]; `tables` is scratch for 12 * 32 vectors.
func signSums(
  _ values: ConstantFloats, _ valueStride: Int, _ count: Int, _ words: UnsafePointer<UInt64>, _ wordStride: Int,
  _ rows: Int, _ tables: Floats, _ out: Floats
) {
  var first = 0
  var word = words
  while first < count {
    for group in 0..<groups {
      tabulate(
        values, valueStride, first &+ group &* signsPerGroup, count, tables + group &* (entries &* 16))
    }
    for row in 0..<rows {
      let bits = word[row]
      var even = load(out, row &* 16), odd = Vector.zero
      var group = 0
      while group < groups {
        let table = tables + group &* (entries &* 16)
        let shift = UInt64(truncatingIfNeeded: group &* signsPerGroup)
        even += load(table, Int(truncatingIfNeeded: (bits &>> shift) & 31) &* 16)
        odd += load(table + entries &* 16, Int(truncatingIfNeeded: (bits &>> (shift &+ 5)) & 31) &* 16)
        group &+= 2
      }
      store(even + odd, out, row &* 16)
    }
    first &+= signsPerWord
    word += wordStride
  }
}

/// All sums +-v0 ... +-v4 of the five vectors from `first` on; those past the end are 0.
@inline(__always)
private func tabulate(_ values: ConstantFloats, _ stride: Int, _ first: Int, _ count: Int, _ table: Floats) {
  var sum = Vector.zero
  for i in 0..<signsPerGroup where first &+ i < count { sum -= load(values, (first &+ i) &* stride) }
  store(sum, table, 0)
  var size = 1
  for i in 0..<signsPerGroup {
    let twice = first &+ i < count ? load(values, (first &+ i) &* stride) * 2 : Vector.zero
    for entry in 0..<size { store(load(table, entry &* 16) + twice, table, (size &+ entry) &* 16) }
    size &*= 2
  }
}

/// out[r] = values[r] where codes[r] > 0, else 0; adds the columns' sums to `sums`. Sixteen columns.
func maskAndSum(
  _ values: ConstantFloats, _ valueStride: Int, _ codes: ConstantFloats, _ codeStride: Int, _ rows: Int, _ out: Floats,
  _ outStride: Int, _ sums: Floats
) {
  var sum = load(sums, 0)
  for row in 0..<rows {
    let value = Vector.zero.replacing(with: load(values, row &* valueStride), where: load(codes, row &* codeStride) .> 0)
    store(value, out, row &* outStride)
    sum += value
  }
  store(sum, sums, 0)
}
