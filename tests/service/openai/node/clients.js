// Draws through each client as its documentation shows it, and prints what came, as JSON.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { DallEAPIWrapper } from "@langchain/openai";
import { generateImage } from "ai";
import OpenAI, { toFile } from "openai";

const baseURL = process.argv[2];
const model = "dall-e-3";
const prompt = "a cat";
const kind = (base64) => Buffer.from(base64, "base64").subarray(1, 4).toString();

const client = new OpenAI({ baseURL, apiKey: "any" });
const answer = await client.images.generate({ model, prompt, n: 2, quality: "hd", style: "vivid", size: "1024x1024" });

const streamed = [];
for await (const event of await client.images.generate({ model, prompt, stream: true, partial_images: 2 })) {
  streamed.push([event.type, kind(event.b64_json)]);
}

const unknown = await client.images.generate({ model: "nobody", prompt }).catch((error) => [error.status, error.code]);

const base64 = answer.data[0].b64_json;
const file = () => toFile(Buffer.from(base64, "base64"), "picture.png", { type: "image/png" });
const edited = await client.images.edit({ model, prompt, image: await file(), mask: await file(), size: "1024x1024" });
const varied = await client.images.createVariation({ model, image: await file(), response_format: "b64_json", n: 2 });
const fromPictures = [edited, varied].map((drawn) => drawn.data.map((image) => kind(image.b64_json)));

const images = {};
for (const [name, provider] of Object.entries({
  openai: createOpenAI({ baseURL, apiKey: "any" }),
  compatible: createOpenAICompatible({ name: "fourstep", baseURL, apiKey: "any" }),
})) {
  const { image } = await generateImage({ model: provider.imageModel(model), prompt, size: "1024x1024" });
  images[name] = [kind(image.base64), image.mediaType];
}

const langchain = await new DallEAPIWrapper({ baseUrl: baseURL, apiKey: "any", model }).invoke(prompt);

const openai = [answer.data.map((image) => kind(image.b64_json)), answer.warnings.map((warning) => warning.field)];
console.log(JSON.stringify({ openai, fromPictures, streamed, unknown, images, langchain }));
