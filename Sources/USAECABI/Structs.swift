import CUSAE
import USAE

/// A struct of usae.h that begins with its size and may grow at its end; the header's conventions say how.
protocol GrowingStruct {
  init()
  var size: UInt32 { get set }
}

extension usae_recipe: GrowingStruct {}
extension usae_recipe_field: GrowingStruct {}
extension usae_step_report: GrowingStruct {}
extension usae_shared_opening: GrowingStruct {}
extension usae_exchange: GrowingStruct {}
extension usae_evaluation: GrowingStruct {}
extension usae_sample: GrowingStruct {}
extension usae_image_options: GrowingStruct {}
extension usae_view: GrowingStruct {}

extension GrowingStruct {
  /// Reads a caller's struct. Fields past its end are those of `defaults`.
  ///
  /// - Parameter smallest: the bytes up to the last field that has no default.
  static func input(
    _ pointer: UnsafePointer<Self>?, _ name: String, defaults: Self = Self(), from smallest: Int = fewestBytes
  ) throws(USAEError) -> Self {
    let memory = UnsafeRawPointer(try required(pointer, name))
    let size = try filledSize(memory, name, from: smallest)
    let known = MemoryLayout<Self>.size
    for byte in stride(from: known, to: size, by: 1) where memory.load(fromByteOffset: byte, as: UInt8.self) != 0 {
      throw .invalidArgument(
        name: name, expected: "0 in every field that this version of the library does not know",
        got: "another value at byte \(byte)", remedy: "leave these fields at 0, or use the library of the header that has them")
    }
    var result = defaults
    withUnsafeMutableBytes(of: &result) {
      $0.copyMemory(from: UnsafeRawBufferPointer(start: memory, count: min(size, known)))
    }
    return result
  }
}

/// A caller's output struct, whose size is checked before the work is done.
struct Output<Struct: GrowingStruct> {
  private let memory: UnsafeMutableRawPointer?
  private let size: Int

  /// nil where the caller wants no output.
  init(_ pointer: UnsafeMutablePointer<Struct>?, _ name: String) throws(USAEError) {
    memory = pointer.map { UnsafeMutableRawPointer($0) }
    size = if let memory { try filledSize(memory, name, from: fewestBytes) } else { 0 }
  }

  /// Writes the fields that the caller's struct has; its size stays.
  func write(_ value: Struct) {
    var value = value
    value.size = UInt32(size)
    withUnsafeBytes(of: value) { memory?.copyMemory(from: $0.baseAddress!, byteCount: min(size, $0.count)) }
  }
}

/// `size` and one more field: all structs are whole numbers of eight bytes, so that no field is cut.
private let fewestBytes = 8

/// No struct grows that large. A size that was never filled in is mostly larger, and is refused.
private let mostBytes = 4096

private func filledSize(_ memory: UnsafeRawPointer, _ name: String, from smallest: Int) throws(USAEError) -> Int {
  let size = Int(memory.load(as: UInt32.self))
  guard (smallest...mostBytes).contains(size), size.isMultiple(of: 8) else {
    throw .invalidArgument(
      name: "\(name).size", expected: "a multiple of 8 from \(smallest) to \(mostBytes)", got: "\(size)",
      remedy: "fill size with sizeof the struct")
  }
  return size
}

/// `reserved` fields are for later versions.
func requireZero<Number: FixedWidthInteger>(_ reserved: Number, _ name: String) throws(USAEError) {
  guard reserved == 0 else {
    throw .invalidArgument(
      name: "\(name).reserved", expected: "0", got: "\(reserved)", remedy: "set the whole struct to 0 first")
  }
}
