import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;

/** Makes a jar of the class files below a directory, which in an archive of classes must not lie in directories. */
public final class Jar {
    public static void main(String[] args) throws Exception {
        Path directory = Path.of(args[0]);
        try (OutputStream file = Files.newOutputStream(Path.of(args[1]));
                JarOutputStream jar = new JarOutputStream(file)) {
            for (Path path : (Iterable<Path>) Files.walk(directory).filter(Files::isRegularFile).sorted()::iterator) {
                jar.putNextEntry(new JarEntry(directory.relativize(path).toString()));
                Files.copy(path, jar);
            }
        }
    }
}
