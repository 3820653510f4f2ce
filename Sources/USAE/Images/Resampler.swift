import KernelTypes

/// A part of a canvas, in whole pixels.
package struct Box: Equatable, Sendable {
  package var top, left, height, width: Int

  package init(top: Int, left: Int, height: Int, width: Int) {
    self.top = top
    self.left = left
    self.height = height
    self.width = width
  }
}

/// Resizes boxes of one size to images of another, and gradients back: Y = R X C^T and X += R^T Y C, R and C being banded.
///
/// Sixteen rows of a result are made at a time: first along the columns, whole rows being added, then along the rows, with
/// sixteen of them side by side in the lanes.
final class Resampler: Sendable {
  static let blockRows = 16
  let height, width: Int  // of the result
  let boxHeight, boxWidth: Int
  private let rows, columns, rowsBack, columnsBack: BandedMatrix

  init(from box: (height: Int, width: Int), to size: (height: Int, width: Int)) {
    (boxHeight, boxWidth) = box
    (height, width) = size
    rows = BandedMatrix(resizing: box.height, to: size.height)
    rowsBack = rows.transposed
    let isSquare = box.height == box.width && size.height == size.width
    columns = isSquare ? rows : BandedMatrix(resizing: box.width, to: size.width)
    columnsBack = isSquare ? rowsBack : columns.transposed
  }

  /// One thread's memory.
  final class Scratch: @unchecked Sendable {
    let stride: Int
    let summed, source, result, out: FloatBuffer
    let ones: FloatBuffer

    init(_ resampler: Resampler) throws(USAEError) {
      stride = paddedWidth(max(resampler.boxWidth, resampler.width))
      let count = Resampler.blockRows * stride
      summed = try FloatBuffer(count)
      source = try FloatBuffer(count)
      result = try FloatBuffer(count)
      out = try FloatBuffer(count)
      ones = try FloatBuffer(16)
      ones.fill(1)
    }

    func row(_ index: Int) -> Floats { out.base + index * stride }
  }

  func makeScratch(_ threads: Int) throws(USAEError) -> [Scratch] {
    var scratch: [Scratch] = []
    for _ in 0..<threads { scratch.append(try Scratch(self)) }
    return scratch
  }

  /// Rows `range`, at most sixteen, of the resized box that begins at `box`, into the scratch's rows. Reads up to 15 floats
  /// past each row of the box.
  func forward(_ box: ConstantFloats, _ stride: Int, rows range: Range<Int>, scratch: Scratch) {
    apply(rows, columns, box, stride, range, scratch)
  }

  /// Rows `range` of the box's share of a gradient of the resized image, likewise.
  func adjoint(_ gradient: ConstantFloats, _ stride: Int, rows range: Range<Int>, scratch: Scratch) {
    apply(rowsBack, columnsBack, gradient, stride, range, scratch)
  }

  private func apply(
    _ rows: BandedMatrix, _ columns: BandedMatrix, _ source: ConstantFloats, _ stride: Int, _ range: Range<Int>,
    _ scratch: Scratch
  ) {
    let kernels = USAE.kernels
    rows.weights.withUnsafeBufferPointer { weights in
      for row in range {
        kernels.images.bandOfRows(
          source + Int(rows.starts[row]) * stride, stride, weights.baseAddress! + row * rows.taps, rows.taps,
          paddedWidth(columns.columns), scratch.summed.base + (row - range.lowerBound) * scratch.stride)
      }
    }
    kernels.transpose.rows(
      scratch.summed.base, scratch.stride, scratch.ones.base, columns.columns, scratch.source.base)
    columns.weights.withUnsafeBufferPointer { weights in
      columns.starts.withUnsafeBufferPointer { starts in
        kernels.images.bandOfLanes(
          scratch.source.base, starts.baseAddress!, weights.baseAddress!, columns.taps, columns.rows, scratch.result.base)
      }
    }
    kernels.transpose.lanes(scratch.result.base, 16, paddedWidth(columns.rows), scratch.out.base, scratch.stride)
  }
}
