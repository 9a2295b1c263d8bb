#version 450
layout(location = 0) out vec3 colour;
const vec2 corners[3] = vec2[](vec2(-.8, -.7), vec2(.9, -.5), vec2(.1, .8));
void main() {
    gl_Position = vec4(corners[gl_VertexIndex], 0., 1.);
    colour = vec3(gl_VertexIndex == 0, gl_VertexIndex == 1, gl_VertexIndex == 2);
}
