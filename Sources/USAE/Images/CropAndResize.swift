import KernelTypes

/// Boxes of an image [3, height, width], resized and on a model's scale, `out` [boxes, 3, size]. All boxes have one size.
package func cropAndResize(
  _ image: UnsafePointer<Float>, height: Int, width: Int, boxes: [Box], to size: (height: Int, width: Int),
  scale: PixelScale, out: UnsafeMutablePointer<Float>, work: InterruptibleWork
) throws(USAEError) {
  try UniversalSAE.require("height", height, in: FourierTransform.sides)
  try UniversalSAE.require("width", width, in: FourierTransform.sides)
  try ImageMaximizer.check(size.height, size.width)
  guard let first = boxes.first else { return }
  for box in boxes {
    let inside =
      box.top >= 0 && box.left >= 0 && box.height >= 1 && box.width >= 1 && box.height <= height && box.width <= width
      && box.top <= height - box.height && box.left <= width - box.width
    guard inside, box.height == first.height, box.width == first.width else {
      throw .invalidArgument(
        name: "boxes", expected: "boxes of one size inside the image of \(height) x \(width)",
        got: "top \(box.top), left \(box.left), height \(box.height), width \(box.width)")
    }
  }
  let canvas = try Canvas(height: height, width: width)
  canvas.copy(from: image)
  let resampler = Resampler(from: (first.height, first.width), to: size)
  try canvas.views(boxes, with: resampler, scale: scale, noise: .none, to: out, work: work)
}
