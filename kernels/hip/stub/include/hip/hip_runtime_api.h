// Deliberately empty: hip-runtime-sys looks for a header of this name before it builds, and reads nothing of it.
