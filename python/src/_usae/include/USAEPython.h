/* Empty: SwiftPM wants a folder of public headers, and the only symbol of this target is PyInit__usae. */
