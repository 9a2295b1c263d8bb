"""Draws a triangle by OpenGL through EGL, without a display, and prints a checksum of the picture.

Needs: pip install moderngl
"""
import struct
import zlib

import moderngl

context = moderngl.create_context(standalone=True, backend="egl")
program = context.program(
    vertex_shader="""
        #version 330
        in vec2 place;
        in vec3 colour;
        out vec3 shade;
        void main() { gl_Position = vec4(place, 0.0, 1.0); shade = colour; }
    """,
    fragment_shader="""
        #version 330
        in vec3 shade;
        out vec4 pixel;
        void main() { pixel = vec4(shade, 1.0); }
    """,
)
corners = struct.pack("15f", -0.9, -0.9, 1, 0, 0, 0.9, -0.9, 0, 1, 0, 0.0, 0.9, 0, 0, 1)
shape = context.vertex_array(program, [(context.buffer(corners), "2f 3f", "place", "colour")])
picture = context.simple_framebuffer((256, 256))
picture.use()
picture.clear(0.0, 0.0, 0.0, 1.0)
shape.render(moderngl.TRIANGLES)
pixels = picture.read(components=4)
print(context.info["GL_RENDERER"])
print(f"{len(pixels)} bytes, {sum(1 for at in range(0, len(pixels), 4) if any(pixels[at:at + 3]))} pixels drawn, checksum {zlib.crc32(pixels):08x}")
