/// One pass of a Stockham transform: butterflies of `radix` elements, `run` adjacent ones for each of `groups` twiddles.
///
/// x[k + run (q + groups j)] is element j of butterfly (q, k); its result r, times exp(-2 pi i q r / (radix groups)), is y[k +
/// run (radix q + r)]. After all passes y is in order, without a `digit reversal`.
public struct FourierPass {
  public var radix, groups, run: Int
  /// exp(-2 pi i q r / (radix groups)), [groups, radix - 1] real and imaginary parts, r from 1.
  public var twiddles: ConstantFloats
  /// cos and sin of 2 pi i / radix, [radix, 2]: read for radices without a butterfly of their own.
  public var roots: ConstantFloats

  public init(radix: Int, groups: Int, run: Int, twiddles: ConstantFloats, roots: ConstantFloats) {
    self.radix = radix
    self.groups = groups
    self.run = run
    self.twiddles = twiddles
    self.roots = roots
  }
}

/// Discrete Fourier transforms of sixteen sequences side by side, one in each lane.
///
/// "Lanes" are [length, 2, 16] floats: element after element, the sixteen real parts before the sixteen imaginary ones.
/// Real rows go in pairs, one as real and one as imaginary parts, so lanes hold 32 of them; tables of rows list the sixteen
/// real ones first.
public struct FourierKernels: @unchecked Sendable {
  /// One pass, x to y. `pass` points to `FourierPass`, strides are those of elements, `scratch` is [2 radix, 16]. Exchanging
  /// real and imaginary parts of both makes it a pass of the inverse transform.
  public typealias Pass =
    @convention(c) (
      _ pass: UnsafeRawPointer, _ xReal: ConstantFloats, _ xImaginary: ConstantFloats, _ xStride: Int, _ yReal: Floats,
      _ yImaginary: Floats, _ yStride: Int, _ scratch: Floats
    ) -> Void
  /// 32 real rows to lanes.
  public typealias LoadRows =
    @convention(c) (_ rows: UnsafePointer<ConstantFloats>, _ columns: Int, _ lanes: Floats) -> Void
  /// Lanes, each number times a scale, to 32 real rows. The lanes are overwritten.
  public typealias StoreRows =
    @convention(c) (_ lanes: Floats, _ scale: Float, _ columns: Int, _ rows: UnsafePointer<Floats>) -> Void
  /// Up to sixteen bins, from `first` on, of the spectra of 32 real rows out of the transform of their pairs. In each row,
  /// sixteen real parts go to `offset` and the imaginary ones behind them; `scratch` is [64, 16].
  public typealias SplitPairs =
    @convention(c) (
      _ lanes: ConstantFloats, _ columns: Int, _ first: Int, _ bins: Int, _ rows: UnsafePointer<Floats>, _ offset: Int,
      _ scratch: Floats
    ) -> Void
  /// The reverse: the transform of pairs, both halves of it, from bins of rows. What must be real in the spectrum of a real row
  /// is taken as real.
  public typealias JoinPairs =
    @convention(c) (
      _ rows: UnsafePointer<ConstantFloats>, _ offset: Int, _ columns: Int, _ first: Int, _ bins: Int, _ lanes: Floats,
      _ scratch: Floats
    ) -> Void

  public var pass: Pass
  public var loadRows: LoadRows
  public var storeRows: StoreRows
  public var splitPairs: SplitPairs
  public var joinPairs: JoinPairs

  public init(
    pass: @escaping Pass, loadRows: @escaping LoadRows, storeRows: @escaping StoreRows, splitPairs: @escaping SplitPairs,
    joinPairs: @escaping JoinPairs
  ) {
    self.pass = pass
    self.loadRows = loadRows
    self.storeRows = storeRows
    self.splitPairs = splitPairs
    self.joinPairs = joinPairs
  }
}
